"""Manifests of clips with their captions, and the collator that turns examples into a batch for training."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Clip:
    """
    One row of a manifest.

    Args:
        audio: Path of the recording.
        captions: Sentences that describe it; any of them may be drawn in training.
        phrases: The same as noun phrases, used where two recordings are joined ("X, followed by Y").
        source: A label of what sounds, if the manifest has one.
    """

    audio: str
    captions: tuple[str, ...]
    phrases: tuple[str, ...] = ()
    source: str | None = None


def read_manifest(path: str | Path, audio_root: str | Path | None = None) -> list[Clip]:
    """
    Read a `.csv` or `.jsonl` manifest.

    Columns: `audio` (relative to `audio_root`, by default the manifest's folder), `caption` or `caption_1`,
    `caption_2`, …, and optionally `phrase_1`, … and `source`. Empty cells are left out.

    Raises:
        ValueError: no such file, another format, or rows without audio or caption, with their line numbers.
    """
    path = Path(path)
    root = path.parent if audio_root is None else Path(audio_root)
    clips, bad = [], []
    for line, row in read_rows(path):
        audio, captions = _numbered(row, "audio"), _numbered(row, "caption")
        if audio and captions:
            clips.append(Clip(str(root / audio[0]), captions, _numbered(row, "phrase"), row.get("source") or None))
        else:
            bad.append(f"line {line}: {'no `caption` or `caption_1`, …' if audio else 'no `audio`'}")
    if bad:
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(f"{path}: " + "; ".join(bad[:5]) + more + ".")
    if not clips:
        raise ValueError(f"{path}: holds no rows.")
    return clips


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows."""
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest.")
    if path.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"{path}: expected a .csv or .jsonl manifest.")
    with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte-order mark
        if path.suffix == ".csv":
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, row
            return
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {line}: not valid JSON ({error}).") from error
            if not isinstance(row, dict):
                raise ValueError(f'{path}, line {line}: expected an object, such as {{"audio": …, "caption": …}}.')
            yield line, row


def _numbered(row: dict[str, Any], name: str) -> tuple[str, ...]:
    """The cells of `name`, `name_1`, `name_2`, … that hold text."""
    cells = [cell for key, cell in row.items() if key and re.fullmatch(rf"{name}(_\d+)?", key)]
    return tuple(cell.strip() for cell in cells if isinstance(cell, str) and cell.strip())


class CaptionCollator:
    """
    Examples -> batch.

    An example is a dict with `input_features` (windows, frames, mel bins), or `encoder_hidden_states` (windows,
    1 + patches, dim), `caption` and optionally `prompt`; the batch is what the model's forward takes,
    padded on the right, with labels.
    """

    def __init__(self, processor: Any, loss_on: str = "answer"):
        self.processor = processor
        self.loss_on = loss_on

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        audio = "input_features" if "input_features" in examples[0] else "encoder_hidden_states"
        num_windows = [len(example[audio]) for example in examples]
        prompts = [example.get("prompt") or self.processor.default_prompt for example in examples]
        captions = [example["caption"] for example in examples]
        return {
            **self.processor.encode(num_windows, prompts, captions, loss_on=self.loss_on),
            audio: torch.cat([example[audio] for example in examples]),
            "audio_num_windows": torch.tensor(num_windows),
        }


__all__ = ["CaptionCollator", "Clip", "read_manifest"]
