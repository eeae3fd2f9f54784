"""
`mac-eval tokens`: the audio tokens of one model or several, at the encoder and after the connector.

At the encoder all models of one tower have tokens of one shape, so that they can be compared whatever the connector.
Padding and the summary token are left out. A clip of several windows counts with the mean over its windows.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation_mac.metrics.bootstrap import weighted_intervals
from evaluation_mac.metrics.token_geometry import describe_tokens
from evaluation_mac.reports.evaluation import RESAMPLES, Evaluation
from evaluation_mac.reports.report import format_interval, format_number, write_table
from processing_mac.whole_files_mac import write_text_whole


DEFINITION = (
    "rank_95: least number of directions with 0.95 of the squared singular values; entropy_rank: exp of the entropy "
    "of the singular values; cosine: mean over pairs of tokens; centred: the clip's mean token removed"
)
CURVE = 64  # directions that the picture of the energy shows


@torch.inference_mode()
def look_at_tokens(captioner: Any, file: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """
    The measures of one recording, named `encoder_…` and `connector_…`, and the two curves of energy.

    Raises:
        ValueError: the recording cannot be read, or is shorter than two tokens.
    """
    model, extractor = captioner.model.model, captioner.processor.feature_extractor
    log_mel = extractor.raw_log_mel(extractor.load(file)[0])
    rows, columns = model.audio_tower.config.grid
    frames = extractor.window_frames
    values: dict[str, list[float]] = defaultdict(list)
    curves: dict[str, list[np.ndarray]] = defaultdict(list)
    for number, window in enumerate(extractor.to_windows(log_mel).split(1)):
        steps = min(len(log_mel) - number * frames, frames) * rows // frames  # time steps that hold sound
        for place, tokens, grid in token_places(model, window, rows, columns, steps):
            if len(tokens) < 2:
                continue
            found, curve = describe_tokens(tokens, *grid)
            for name, value in found.items():
                values[f"{place}_{name}"].append(value)
            curves[place].append(np.pad(curve[:CURVE], (0, max(0, CURVE - len(curve))), constant_values=1.0))
    if "encoder_tokens" not in values or "connector_tokens" not in values:
        raise ValueError(f"{file}: expected sound of at least two tokens")
    return (
        {name: float(np.mean(found)) for name, found in values.items()},
        {place: np.mean(found, axis=0) for place, found in curves.items()},
    )


def token_places(
    model: Any, window: torch.Tensor, rows: int, columns: int, steps: int
) -> Iterator[tuple[str, np.ndarray, tuple[np.ndarray | None, np.ndarray | None]]]:
    """Yield, for encoder and connector, the name, tokens with sound (n, d), and their time steps and bands (n,)."""
    output = model.audio_tower(window.to(model.device))
    patches = output.last_hidden_state[:, 1:]
    kept = getattr(output, "kept_patches", None)  # (1, n) places that pruning has left
    places = np.arange(rows * columns)
    if kept is not None and patches.shape[1] != rows * columns:
        places = kept[0].cpu().numpy()
    time, band = places // columns, places % columns
    sound = time < steps
    yield "encoder", to_numpy(patches[0])[sound], (time[sound], band[sound])
    tokens = to_numpy(model.connector(patches)[0])
    if len(tokens) == len(places):  # one token for each of the encoder's
        if model.config.connector_type == "frequency_major":
            time, band = np.tile(np.arange(rows), columns), np.repeat(np.arange(columns), rows)
        sound = time < steps
        yield "connector", tokens[sound], (time[sound], band[sound])
    else:  # a token is one time step or several
        yield "connector", tokens[: -(-len(tokens) * steps // rows)], (None, None)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """On the CPU, in float64."""
    return tensor.double().cpu().numpy()


def evaluate_tokens(captioner: Any, files: Sequence[str], failed: dict[str, str]) -> tuple[Evaluation, dict] | None:
    """Means over clips with intervals, a row a clip, and the mean curves; `failed` takes what cannot be read."""
    rows, curves = [], []
    for file in files:
        try:
            values, curve = look_at_tokens(captioner, file)
        except ValueError as error:
            failed[file] = str(error)
        else:
            rows.append({"audio": file, **values})
            curves.append(curve)
    if not rows:
        return None
    table = {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0] if name != "audio"}
    table = {name: values for name, values in table.items() if not np.isnan(values).all()}
    scores = {name: float(np.nanmean(values)) for name, values in table.items()}
    intervals = weighted_intervals(
        lambda counts: {name: mean_of(values, counts) for name, values in table.items()}, len(rows), RESAMPLES
    )
    energy = {place: np.mean([curve[place] for curve in curves], axis=0) for place in curves[0]}
    return Evaluation(scores, intervals, rows), {place: curve.tolist() for place, curve in energy.items()}


def mean_of(values: np.ndarray, counts: np.ndarray) -> float:
    """Mean of what is a number, each value so many times."""
    real = ~np.isnan(values)
    return float(np.average(values[real], weights=counts[real])) if counts[real].any() else float("nan")


def write_tokens(
    folder: Path, settings: dict[str, Any], found: dict[str, tuple[Evaluation, dict]], failed: dict[str, str]
) -> str:
    """Write `results.json`, `clips.csv`, `report.md` and `tokens.png`; give the report."""
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
        draw_tokens(folder / "tokens.png", {name: energy for name, (_, energy) in found.items()})
    return report


def format_tokens(settings: dict[str, Any], found: dict[str, tuple[Evaluation, dict]], failed: dict[str, str]) -> str:
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


def draw_tokens(path: Path, energies: dict[str, dict[str, list[float]]]) -> None:
    """The cumulative energy of the singular values, encoder left, connector right, a line a model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    for axes, place in zip(figure.subplots(1, 2, sharey=True), ("encoder", "connector"), strict=True):
        for name, curves in energies.items():
            axes.plot(range(1, len(curves[place]) + 1), curves[place], label=name)
        axes.set_title(f"tokens at the {place}")
        axes.set_xlabel("directions")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.supylabel("share of the energy", fontsize=10)
    figure.savefig(path, dpi=130)
