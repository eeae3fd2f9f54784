"""The plot of the speed table: bars, time over ours."""

from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import Patch


COLOURS = {"ours": "#1b7837", "compiled": "#7fbf7b", "portable": "#a6dba0", "graph": "#00441b", "stock": "#b2182b",
           "gpt_neox": "#2166ac", "floor": "#999999", "bytes": "#cccccc"}  # fmt: skip
WIDTH = 0.85  # of the bars that stand at one place, together


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Write the PNG; machine, versions and commit stand under it."""
    rows = [
        (size, column, record["seconds"]) for size, columns in results.items() for column, record in columns.items()
    ]
    rows = [row for row in rows if "ours" in row[2]]
    figure, axis = pyplot.subplots(figsize=(4 + len(rows) / 2.2, 5))
    shown = [variant for variant in COLOURS if any(variant in seconds for _, _, seconds in rows)]
    width = WIDTH / len(shown)
    for place, (_, _, seconds) in enumerate(rows):
        variants = [variant for variant in shown if variant in seconds]
        for number, variant in enumerate(variants):
            left = place + (number - len(variants) / 2) * width
            axis.bar(left, seconds[variant] / seconds["ours"], width, align="edge", color=COLOURS[variant])
    axis.set_xticks(range(len(rows)), [f"{column}, {size}" for size, column, _ in rows], rotation=40, ha="right")
    axis.set(ylabel="time over ours", xlim=(-1, len(rows)))
    handles = [Patch(color=COLOURS[variant], label=variant) for variant in shown]
    axis.legend(handles=handles, ncols=len(handles), loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    last = [record for columns in results.values() for record in columns.values()][-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    commits = sorted({record["commit"] for columns in results.values() for record in columns.values()})
    note = f"{last['machine']}, {last['threads']} threads; {versions}; commit {', '.join(commits)}"
    figure.text(0.01, 0.005, note, fontsize=7)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.rename(path)
    pyplot.close(figure)
