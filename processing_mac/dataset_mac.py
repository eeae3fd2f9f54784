"""Manifests of clips with their captions, and the collator that turns examples into a batch for training."""

import csv
import json
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
        ValueError: no such file, another format, a missing column, or rows without audio or caption, each with its
            line number.
    """
    path = Path(path)
    root = path.parent if audio_root is None else Path(audio_root)
    clips, bad = [], []
    for line, row in _read_rows(path):
        captions = _numbered(row, "caption")
        if not row.get("audio") or not captions:
            bad.append(f"line {line}: {'no `audio`' if not row.get('audio') else 'no `caption` or `caption_1`, …'}")
            continue
        clips.append(Clip(str(root / row["audio"]), captions, _numbered(row, "phrase"), row.get("source") or None))
    if bad or not clips:
        raise ValueError(f"{path}: " + ("; ".join(bad) if bad else "holds no rows."))
    return clips


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows."""
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest.")
    if path.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"{path}: expected a .csv or .jsonl manifest.")
    with open(path, encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, row
            return
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                yield line, json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {line}: not valid JSON ({error}).") from error


def _numbered(row: dict[str, Any], name: str) -> tuple[str, ...]:
    """The cells of `name`, `name_1`, `name_2`, … that hold text."""
    keys = [key for key in row if key and (key == name or key.rpartition("_")[0] == name)]
    return tuple(row[key].strip() for key in keys if row[key] and row[key].strip())


class CaptionCollator:
    """
    Examples -> batch.

    An example is a dict with `input_features` (windows, frames, mel bins), `caption` and optionally `prompt`; the batch
    is what `MacForConditionalGeneration.forward` takes, padded on the right, with labels.
    """

    def __init__(self, processor: Any, loss_on: str = "answer"):
        self.processor = processor
        self.loss_on = loss_on

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        num_windows = [len(example["input_features"]) for example in examples]
        prompts = [example.get("prompt") or self.processor.default_prompt for example in examples]
        captions = [example["caption"] for example in examples]
        return {
            **self.processor.encode(num_windows, prompts, captions, loss_on=self.loss_on),
            "input_features": torch.cat([example["input_features"] for example in examples]),
            "audio_num_windows": torch.tensor(num_windows),
        }


__all__ = ["CaptionCollator", "Clip", "read_manifest"]
