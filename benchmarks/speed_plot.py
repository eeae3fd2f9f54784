"""The plot of the speed table: bars, a panel a size, time over ours."""

from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("Agg")
from matplotlib import pyplot


COLOURS = {"ours": "#1b7837", "compiled": "#7fbf7b", "stock": "#b2182b", "gpt_neox": "#2166ac", "floor": "#999999"}


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Write the PNG; machine, versions and commit stand under it."""
    figure, axes = pyplot.subplots(len(results), 1, figsize=(11, 4.5 * len(results)), squeeze=False)
    for axis, (size, columns) in zip(axes[:, 0], results.items(), strict=True):
        width = 0.8 / len(COLOURS)
        for place, (variant, colour) in enumerate(COLOURS.items()):
            bars = {
                index: record["seconds"][variant] / record["seconds"]["ours"]
                for index, record in enumerate(columns.values())
                if variant in record["seconds"] and "ours" in record["seconds"]
            }
            positions = [index + (place - (len(COLOURS) - 1) / 2) * width for index in bars]
            if bars:
                axis.bar(positions, list(bars.values()), width, color=colour, label=variant)
        axis.set_xticks(range(len(columns)), list(columns), rotation=40, ha="right")
        axis.set(title=size, ylabel="time over ours")
        axis.legend(ncols=len(COLOURS))
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
