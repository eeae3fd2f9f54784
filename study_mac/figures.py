"""The study as pictures; each is drawn only where its axes or evaluations are there. Needs matplotlib."""

from collections import defaultdict
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from study_mac.study_file import Cell, Study


Row = dict[str, Any]
Found = dict[Cell, dict[str, Any]]


def draw_figures(study: Study, found: Found, tables: dict[str, list[Row]]) -> list[Path]:
    """Draw into `figures/` what there is; gives the files, none without matplotlib."""
    if find_spec("matplotlib") is None or not found:
        return []
    folder = study.folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    results, tokens = tables["results"], tables.get("tokens", [])
    files = []
    for score in study.scores:
        name = score.replace("/", "_")
        if "size" in study.axes:
            files.append(draw_lines(folder / f"{name}-size.png", study, results, "size", "rank", [score]))
        if any(row.get("audio_tokens") for row in results):
            files.append(draw_against_tokens(folder / f"{name}-tokens.png", results, score))
        files.append(draw_cells(folder / f"{name}-cells.png", study, results, score))
        if "exchange" in tables:
            files.append(draw_exchange(folder / f"{name}-exchange.png", tables["exchange"], score))
    if tokens and "size" in study.axes:
        measures = ["encoder_rank_95", "encoder_centred_rank_95", "encoder_cosine", "encoder_centred_cosine"]
        files.append(draw_lines(folder / "tokens-size.png", study, tokens, "size", "encoder", measures))
    if tokens:
        files.append(draw_energy(folder / "energy.png", study, found))
    return files


def new_figure(count: int, width: float = 4.6, height: float = 3.6) -> tuple[Any, Any]:
    """A figure with so many axes, two in a row, so that a page shows them in a size to be read."""
    from matplotlib.figure import Figure

    columns, rows = min(count, 2), -(-count // 2)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()[:count]


def draw_lines(path: Path, study: Study, rows: list[Row], across: str, line: str, names: list[str]) -> Path:
    """Each measure against an axis, a line a value of another one; all other axes at the reference."""
    figure, panels = new_figure(len(names))
    reference = dict(study.reference.values)
    fixed = {axis: value for axis, value in reference.items() if axis not in (across, line, "seed")}
    chosen = [row for row in rows if all(row[axis] == value for axis, value in fixed.items())]
    for axes, name in zip(panels, names, strict=True):
        lines: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in chosen:
            lines[str(row.get(line, ""))][row[across]] = row
        for label, points in lines.items():
            places = [value for value in study.axes[across] if value in points and points[value].get(name) is not None]
            values = np.array([points[value][name] for value in places])
            low, high = (np.array([points[v].get(f"{name} {end}", points[v][name]) for v in places]) for end in
                         ("min", "max"))  # fmt: skip
            axes.errorbar(places, values, [values - low, high - values], marker="o", capsize=3,
                          label=f"{line} {label}")  # fmt: skip
        axes.set_xlabel(across)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        if line in study.axes:  # else there is one line, which needs no name
            axes.legend(fontsize=8)
    return save(figure, path)


def draw_against_tokens(path: Path, rows: list[Row], score: str) -> Path:
    """The score against the audio tokens of a window, a point a cell."""
    figure, (axes,) = new_figure(1)
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("audio_tokens") and row.get(score) is not None:
            groups[row.get("connector", "")].append(row)
    for label, points in groups.items():
        axes.plot([row["audio_tokens"] for row in points], [row[score] for row in points], "o", label=label)
    axes.set_xscale("log", base=2)
    counts = sorted({row["audio_tokens"] for points in groups.values() for row in points})
    axes.set_xticks(counts, map(str, counts))  # 32, not a power of two
    axes.minorticks_off()
    axes.set_xlabel("audio tokens of a window")
    axes.set_ylabel(score)
    axes.grid(alpha=0.3)
    if any(groups):  # of connectors; a study of one has nothing to tell apart
        axes.legend(fontsize=8)
    return save(figure, path)


def draw_cells(path: Path, study: Study, rows: list[Row], score: str) -> Path:
    """All cells, one below the other, with the range of their seeds; the reference is dashed."""
    rows = [row for row in rows if row.get(score) is not None]
    reference = dict(study.reference.without("seed").values)
    figure, (axes,) = new_figure(1, 7.5, 1 + 0.3 * len(rows))
    for place, row in enumerate(rows):
        axes.plot([row[f"{score} min"], row[f"{score} max"]], [place, place], color="tab:blue")
        axes.plot(row[score], place, "o", color="tab:blue")
        if all(row[axis] == value for axis, value in reference.items()):
            axes.axvline(row[score], color="black", linestyle=":", linewidth=1)
    names = [label_of([(axis, row[axis]) for axis in reference], reference) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"{score}, mean and range over seeds")
    axes.grid(axis="x", alpha=0.3)
    return save(figure, path)


def label_of(values: Iterable[tuple[str, str]], reference: dict[str, str]) -> str:
    """What sets a cell apart from the reference, such as "rank 2"."""
    return ", ".join(f"{axis} {value}" for axis, value in values if reference[axis] != value) or "reference"


def draw_exchange(path: Path, rows: list[Row], score: str) -> Path:
    """Encoder trained with (rows) and used with (columns), as a heat map."""
    rows = [row for row in rows if row["score"] == score]
    trained = [row["trained with"] for row in rows]
    named = dict.fromkeys([*trained, *(name for row in rows for name in row)])
    used = [name for name in named if any(f"{name} min" in row for row in rows)]
    values = np.array([[row.get(name, np.nan) for name in used] for row in rows], dtype=float)
    figure, (axes,) = new_figure(1)
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(used)), used)
    axes.set_yticks(range(len(rows)), trained)
    axes.set_xlabel("used with")
    axes.set_ylabel("trained with")
    for (y, x), value in np.ndenumerate(values):
        if not np.isnan(value):  # dark on the bright half of the colours
            color = "black" if image.norm(value) > 0.5 else "white"
            axes.text(x, y, f"{value:.3g}", ha="center", va="center", color=color, fontweight="bold")
    figure.colorbar(image, label=score)
    return save(figure, path)


def draw_energy(path: Path, study: Study, found: Found) -> Path:
    """Cumulative energy of the singular values, encoder left, connector right, a line a cell of the first seed."""
    from matplotlib import colormaps

    (name, *_) = [name for name, options in study.evaluations.items() if options["task"] == "tokens"]
    figure, panels = new_figure(2, 5.5, 4)
    reference = dict(study.reference.values)
    shown = [cell for cell in found if "seed" not in reference or cell["seed"] == reference["seed"]]
    colors = colormaps["turbo"](np.linspace(0, 1, len(shown)))  # as many as there are lines
    for cell, color in zip(shown, colors, strict=True):
        *_, model = found[cell]["evaluations"][name]["results"]["models"].values()  # towers stand before it
        for axes, place in zip(panels, ("encoder", "connector"), strict=True):
            energy = model["energy"][place]
            axes.plot(range(1, len(energy) + 1), energy, label=label_of(cell.values, reference), color=color)
            axes.set_title(f"tokens at the {place}")
            axes.set_xlabel("directions")
            axes.set_ylabel("share of the energy")
            axes.grid(alpha=0.3)
    panels[1].legend(fontsize=7)
    return save(figure, path)


def save(figure: Any, path: Path) -> Path:
    """Write the picture."""
    figure.savefig(path, dpi=120)
    return path
