"""What `mac-eval tokens` found, as `results.json`, `clips.csv`, `report.md`, `tokens.png` and `measures.png`."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluation_mac.reports.evaluation import Evaluation
from evaluation_mac.reports.report import format_interval, format_number, write_table
from processing_mac.whole_files_mac import write_text_whole


DEFINITION = (
    "rank_95: least number of directions with 0.95 of the squared singular values, rank_95_share: the same over the "
    "most there could be; entropy_rank: exp of the entropy of the singular values; cosine: mean over pairs of tokens, "
    "in_step: over those of one time step, in_band: of one frequency band; centred: the clip's mean token removed"
)
PLACES = ("encoder", "connector")
Found = dict[str, tuple[Evaluation, dict[str, list[float]]]]  # by model: scores, and the curves of energy


def write_tokens(folder: Path, settings: dict[str, Any], found: Found, failed: dict[str, str]) -> str:
    """Write all files, the pictures where matplotlib is installed; give the report."""
    models = {
        name: {
            "clips": len(evaluation.clips),
            "scores": {
                score: {"value": value, "interval_95": evaluation.intervals[score]}
                for score, value in evaluation.scores.items()
            },
            "energy": energy,
        }
        for name, (evaluation, energy) in found.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    results = {"settings": settings, "definition": DEFINITION, "failed": failed, "models": models}
    write_text_whole(folder / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    write_table(
        folder / "clips.csv", [{"model": name, **row} for name, (one, _) in found.items() for row in one.clips]
    )
    report = format_tokens(settings, found, failed)
    write_text_whole(folder / "report.md", report)
    if find_spec("matplotlib"):
        draw_energy(folder / "tokens.png", found)
        draw_measures(folder / "measures.png", found)
    return report


def format_tokens(settings: dict[str, Any], found: Found, failed: dict[str, str]) -> str:
    """A row a measure, a column a model."""
    names = list(dict.fromkeys(score for evaluation, _ in found.values() for score in evaluation.scores))
    lines = [
        f"# Audio tokens on {settings['dataset']}",
        "",
        f"{DEFINITION}. Mean over clips; 95 % intervals in brackets, bootstrap over clips.",
        "",
        f"| measure | {' | '.join(found)} |",
        "|---" * (1 + len(found)) + "|",
    ]
    for score in names:
        cells = [
            f"{format_number(evaluation.scores[score])} [{format_interval(evaluation.intervals[score])}]"
            if score in evaluation.scores
            else ""
            for evaluation, _ in found.values()
        ]
        lines.append(f"| {score} | {' | '.join(cells)} |")
    if failed:
        lines += ["", f"Not counted, {len(failed)} that could not be read:", "", *(f"* {e}" for e in failed.values())]
    return "\n".join(lines) + "\n"


def draw_energy(path: Path, found: Found) -> None:
    """
    The cumulative energy of the singular values, a line a model: encoder left, connector right, below without the
    clip's mean token, which alone holds most of it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 6.6), layout="constrained")
    for row, suffix in zip(figure.subplots(2, 2, sharey="row"), ("", "_centred"), strict=True):
        for axes, place in zip(row, PLACES, strict=True):
            for number, (name, (_, energy)) in enumerate(found.items()):
                if curve := energy.get(f"{place}{suffix}"):  # a tower alone has no connector
                    axes.plot(range(1, len(curve) + 1), curve, color=f"C{number}", label=name)
            axes.set_title(f"{place}{', mean token removed' if suffix else ''}", fontsize=10)
            axes.set_xlabel("directions")
            axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.supylabel("share of the energy", fontsize=10)
    figure.savefig(path, dpi=130)


def draw_measures(path: Path, found: Found) -> None:
    """Rank and cosine of every model with their intervals, encoder left, connector right."""
    from matplotlib.figure import Figure

    measures = ("rank_95_share", "centred_rank_95_share", "cosine", "centred_cosine")
    figure = Figure(figsize=(9.5, 1.6 + 0.22 * len(measures) * len(found)), layout="constrained")
    for axes, place in zip(figure.subplots(1, 2, sharey=True), PLACES, strict=True):
        for number, (name, (evaluation, _)) in enumerate(found.items()):
            shown = [
                (at, f"{place}_{one}") for at, one in enumerate(measures) if f"{place}_{one}" in evaluation.scores
            ]
            heights = [at + 0.7 * ((number + 0.5) / len(found) - 0.5) for at, _ in shown]
            bounds = [evaluation.intervals[one] for _, one in shown]
            color = f"C{number}"
            axes.plot([evaluation.scores[one] for _, one in shown], heights, "o", color=color, label=name)
            axes.hlines(heights, [low for low, _ in bounds], [high for _, high in bounds], color=color)
        axes.set_yticks(range(len(measures)), [one.replace("_", " ") for one in measures])
        axes.set_title(place, fontsize=10)
        axes.set_xlabel("value, with its 95 % interval")
        axes.grid(axis="x", alpha=0.3)
    figure.axes[0].invert_yaxis()
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
