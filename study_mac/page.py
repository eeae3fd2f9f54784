"""One HTML page with every table and figure of a study inside, so that it can be read offline and sent by mail."""

import base64
import html
from pathlib import Path
from typing import Any

from evaluation_mac.reports.report import format_number
from processing_mac.whole_files_mac import write_text_whole
from study_mac.readable import readable
from study_mac.study_file import Study


TITLES = {
    "results": "Every cell",
    "encoder": "How the encoder is tuned",
    "rank": "Rank of LoRA",
    "connector": "Connectors",
    "size": "Size of the language model",
    "exchange": "An encoder under another language model",
    "tokens": "The audio tokens",
    "runs": "Every run",
}
STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #fafaf7; max-width: 72rem; margin: 2rem auto;
  padding: 0 1.2rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.6rem; border-bottom: 1px solid #ddd; padding-bottom: .3rem }
.table { overflow-x: auto } table { border-collapse: collapse; font-size: .86rem; background: #fff }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e6e6e0; text-align: right; white-space: nowrap }
th { background: #f0efe8; position: sticky; top: 0 } tr.reference td { background: #fff6d6 }
td.word, th:first-child { text-align: left }
img { max-width: 100%; background: #fff; border: 1px solid #e6e6e0; margin: .4rem 0 }
.missing { color: #8a4b00 } code { background: #f0efe8; padding: .1rem .3rem }
"""


def write_page(
    study: Study, tables: dict[str, list[dict[str, Any]]], figures: list[Path], missing: list[str], failed: dict
) -> Path:
    """Write `index.html`; gives its path."""
    done, count = len(study.cells) - len(missing), len(study.cells)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{html.escape(study.path.stem)}</title><style>{STYLE}</style>",
        f"<h1>Study <em>{html.escape(study.path.stem)}</em></h1>",
        f"<p>{done} of {count} cells are finished. Reference: <code>{html.escape(study.reference.name)}</code>. "
        "Scores are means over seeds, with their range; differences are from the reference on the same clips, with a "
        "95 % bootstrap interval over clips and the p of a sign-flip test, not corrected for their number.</p>",
        f"<p>Again: <code>mac-study {html.escape(str(study.path))}</code></p>",
    ]
    if missing:
        reasons = [f"<li>{html.escape(name)}: {html.escape(failed.get(name, 'not run yet'))}</li>" for name in missing]
        parts.append(f"<details class=missing><summary>{len(missing)} cells are missing</summary><ul>")
        parts += [*reasons, "</ul></details>"]
    for name, rows in tables.items():
        parts += [f"<h2>{TITLES[name]}</h2>", table(study, readable(study, name, rows))]
        parts.append(f"<p>Every column: <code>tables/{name}.csv</code></p>")
        parts += [picture(path) for path in figures if section_of(path) == name]
    page = study.folder / "index.html"
    write_text_whole(page, "\n".join(parts) + "\n</html>\n")
    return page


def section_of(path: Path) -> str:
    """The table that a figure belongs to."""
    if path.stem == "energy" or path.stem == "tokens-size":
        return "tokens"
    return {"size": "size", "exchange": "exchange"}.get(path.stem.rsplit("-", 1)[-1], "results")


def picture(path: Path) -> str:
    """A figure inside the page."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{html.escape(path.stem)}' src='data:image/png;base64,{content}'>"


def table(study: Study, rows: list[dict[str, Any]]) -> str:
    """The rows as a table; the reference's is marked."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    reference = dict(study.reference.without("seed").values)
    lines = ["<div class=table><table><tr>", *(f"<th>{html.escape(name)}</th>" for name in columns), "</tr>"]
    for row in rows:
        named = [axis for axis in reference if axis in row]
        is_reference = row.get("cell") == "reference" or (
            named and all(row[axis] == reference[axis] for axis in named)
        )
        lines.append("<tr class=reference>" if is_reference else "<tr>")
        for name in columns:
            value = row.get(name)
            text = "" if value is None else format_number(value) if isinstance(value, float) else str(value)
            lines.append(f"<td{' class=word' if isinstance(value, str) else ''}>{html.escape(text)}</td>")
        lines.append("</tr>")
    return "\n".join([*lines, "</table></div>"])
