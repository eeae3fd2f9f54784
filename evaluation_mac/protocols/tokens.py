"""
`mac-eval tokens`: the audio tokens of one model or several, at the encoder and after the connector.

At the encoder all models of one tower have tokens of one shape, so that they can be compared whatever the connector,
also with a tower that no captioner has trained. Padding and the summary token are left out. A clip of several windows
counts with the mean over its windows.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation_mac.metrics.bootstrap import mean_of, weighted_intervals
from evaluation_mac.metrics.token_geometry import describe_tokens
from evaluation_mac.reports.evaluation import RESAMPLES, Evaluation
from modeling_mac.audio_tower_mac import build_audio_tower
from modeling_mac.conversion_audio_mac import load_audio_tower
from processing_mac import MacFeatureExtractor


CURVE = 64  # directions that the picture of the energy shows


@dataclass(frozen=True)
class Listener:
    """
    What makes tokens of a recording.

    Args:
        tower: Audio tower.
        extractor: Its front end.
        connector: What follows it in a captioner; None for a tower alone.
        connector_type: Kind of the connector.
    """

    tower: Any
    extractor: Any
    connector: Any = None
    connector_type: str = ""


def named_sources(towers: Sequence[str], models: Sequence[str]) -> list[tuple[str, str, bool]]:
    """
    What the results call each tower and model, where it is, and whether it is a tower; the towers first.

    Raises:
        ValueError: There is none, or one twice.
    """
    sources = [*((tower, True) for tower in towers), *((model, False) for model in models)]
    if not sources:
        raise ValueError("expected --model or --tower; either may be given again")
    if twice := [source for number, source in enumerate(sources) if source in sources[:number]]:
        raise ValueError(f"--{'tower' if twice[0][1] else 'model'} {twice[0][0]} is given twice")
    ends = [" (tower)" if is_tower else "" for _, is_tower in sources]
    short = [f"{Path(source).name}{end}" for (source, _), end in zip(sources, ends, strict=True)]
    return [
        (f"{source}{end}" if short.count(name) > 1 else name, source, is_tower)
        for name, end, (source, is_tower) in zip(short, ends, sources, strict=True)
    ]


def listener_of(captioner: Any) -> Listener:
    """The tower and connector of a captioner."""
    model = captioner.model.model
    extractor = captioner.processor.feature_extractor
    return Listener(model.audio_tower, extractor, model.connector, model.config.connector_type)


def load_tower(source: str, device: torch.device | str) -> Listener:
    """
    Load a tower alone: what its authors released, such as an EAT that no captioner has trained, or that of a MAC.

    Raises:
        ValueError: There is no tower, or one of no known kind.
    """
    try:
        config, weights = load_audio_tower(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"--tower {error}") from error
    tower = build_audio_tower(config).eval()
    tower.load_state_dict(weights)
    return Listener(tower.to(device), MacFeatureExtractor(**config.front_end))


@torch.inference_mode()
def look_at_tokens(listener: Listener, file: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """
    The measures of one recording, named `encoder_…` and `connector_…`, and the curves of energy, also `…_centred`.

    Raises:
        ValueError: the recording cannot be read, or is shorter than two tokens.
    """
    extractor = listener.extractor
    log_mel = extractor.raw_log_mel(extractor.load(file)[0])
    rows, columns = listener.tower.config.grid
    frames = extractor.window_frames
    values: dict[str, list[float]] = defaultdict(list)
    curves: dict[str, list[np.ndarray]] = defaultdict(list)
    for number, window in enumerate(extractor.to_windows(log_mel).split(1)):
        steps = min(len(log_mel) - number * frames, frames) * rows // frames  # time steps that hold sound
        for place, tokens, grid in token_places(listener, window, rows, columns, steps):
            if len(tokens) < 2:
                continue
            found, found_curves = describe_tokens(tokens, *grid)
            for name, value in found.items():
                values[f"{place}_{name}"].append(value)
            for suffix, curve in zip(("", "_centred"), found_curves, strict=True):
                padded = np.pad(curve[:CURVE], (0, max(0, CURVE - len(curve))), constant_values=1.0)
                curves[f"{place}{suffix}"].append(padded)
    if "encoder_tokens" not in values or (listener.connector is not None and "connector_tokens" not in values):
        raise ValueError(f"{file}: expected sound of at least two tokens")
    return (
        {name: float(np.mean(found)) for name, found in values.items()},
        {place: np.mean(found, axis=0) for place, found in curves.items()},
    )


def token_places(
    listener: Listener, window: torch.Tensor, rows: int, columns: int, steps: int
) -> Iterator[tuple[str, np.ndarray, tuple[np.ndarray | None, np.ndarray | None]]]:
    """Yield, for encoder and connector, the name, tokens with sound (n, d), and their time steps and bands (n,)."""
    output = listener.tower(window.to(listener.tower.device))
    patches = output.last_hidden_state[:, 1:]
    kept = getattr(output, "kept_patches", None)  # (1, n) places that pruning has left
    places = np.arange(rows * columns)
    if kept is not None and patches.shape[1] != rows * columns:
        places = kept[0].cpu().numpy()
    time, band = places // columns, places % columns
    sound = time < steps
    yield "encoder", to_numpy(patches[0])[sound], (time[sound], band[sound])
    if listener.connector is None:
        return
    tokens = to_numpy(listener.connector(patches)[0])
    if len(tokens) == len(places):  # one token for each of the encoder's
        if listener.connector_type == "frequency_major":
            time, band = np.tile(np.arange(rows), columns), np.repeat(np.arange(columns), rows)
        sound = time < steps
        yield "connector", tokens[sound], (time[sound], band[sound])
    else:  # a token is one time step or several
        yield "connector", tokens[: -(-len(tokens) * steps // rows)], (None, None)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """On the CPU, in float64."""
    return tensor.double().cpu().numpy()


def evaluate_tokens(
    listener: Listener, files: Sequence[str], failed: dict[str, str]
) -> tuple[Evaluation, dict] | None:
    """Means over clips with intervals, a row a clip, and the mean curves; `failed` takes what cannot be read."""
    rows, curves = [], []
    for file in files:
        try:
            values, curve = look_at_tokens(listener, file)
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
