"""
What the teacher of `mac-small` hears itself of the recordings by which that is measured, and so what it can teach.

    python recipes/teacher_bounds.py runs/everyday/told-50 runs/everyday/told-51 --teacher yamnet.tflite \
      --classes yamnet_class_map.csv --everyday runs/everyday --esc50 runs/esc50

A ridge regression tells the tags of a recording from the mean of YAMNet's embeddings, after it has learnt from the
scenes of `mix_everyday.py` in the folders. Of the kinds that have no narrower one it puts the right one first in some
recordings of ESC-50's fold 5 (`validation.csv`), and the two right ones of two at once in some of `pairs.csv`.

Whether a sound is of a kind that was never learnt (`left_out.csv`) YAMNet's own classes must say, which know those
kinds: a recording is called unknown where a class without a kind of `everyday_captions.yaml` exceeds all with one by
more than in all but a twentieth of fold 5. YAMNet is run by `ai-edge-litert`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch


sys.path.insert(0, str(Path(__file__).parent))

from everyday_grammar import Grammar
from mix_everyday import load_teacher
from prepare_esc50 import read_table

from processing_mac.audio_mac import load_waveform
from training_mac.objectives.teacher_targets import TEACHER_STEP, TeacherTargets


AT_ONCE = " while "  # between two sources
PENALTY = 0.01  # of the regression, as a share of the embeddings' mean square; from 0.001 to 0.3 little changes
PRICE = 0.05  # share of fold 5 that may be called unknown

Hear = Callable[[np.ndarray], np.ndarray]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+", help="folders of scenes with targets.safetensors")
    parser.add_argument("--teacher", type=Path, required=True, help="yamnet.tflite")
    parser.add_argument("--classes", type=Path, required=True, help="yamnet_class_map.csv, with display_name")
    parser.add_argument("--everyday", type=Path, required=True, help="folder of left_out.csv")
    parser.add_argument("--esc50", type=Path, required=True, help="folder of validation.csv and pairs.csv")
    options = parser.parse_args(arguments)
    try:
        fold5, pairs = (read_table(options.esc50 / f"{name}.csv") for name in ("validation", "pairs"))
        unknown, grammar = read_table(options.everyday / "left_out.csv"), Grammar()
        classes = [row["display_name"] for row in read_table(options.classes)]
        embed, classify = load_teacher(options.teacher), load_teacher(options.teacher, classes=True)
        weight = fit_tags([TeacherTargets.load(folder / "targets.safetensors") for folder in options.scenes])
    except (OSError, ValueError) as error:
        parser.error(str(error))
    at_once = [row for row in pairs if AT_ONCE in row["source"]]
    print(f"fold 5, the right kind first: {100 * share_of_right(fold5, embed, weight, grammar):.1f} %")
    print(f"two at once, both first: {100 * share_of_right(at_once, embed, weight, grammar):.1f} %")
    margins = [margins_of(rows, classify, classes, grammar) for rows in (fold5, unknown)]
    found = (margins[1] > margins[0].quantile(1 - PRICE)).float().mean()
    print(f"never learnt, called unknown where {100 * PRICE:.0f} % of fold 5 are: {100 * found:.1f} %")


def fit_tags(targets: Sequence[TeacherTargets]) -> torch.Tensor:
    """Fit a ridge regression from the mean embedding of a stretch to its tags, (1 + embedding, tags) with the bias."""
    rows, tags = [], []
    for each in targets:
        for embeddings, stretches in zip(each.embeddings, each.stretches, strict=True):
            for first, end, ids in stretches:
                start = min(round(first / TEACHER_STEP), len(embeddings) - 1)
                rows.append(embeddings[start : max(start + 1, round(end / TEACHER_STEP))].float().mean(0))
                tags.append(torch.zeros(len(each.tags)).index_fill_(0, torch.tensor(ids), 1.0))
    inputs = with_bias(torch.stack(rows)).double()
    products = inputs.mT @ inputs
    products.diagonal()[1:].add_(PENALTY * products.diagonal()[1:].mean())
    return torch.linalg.solve(products, inputs.mT @ torch.stack(tags).double()).float()


def with_bias(rows: torch.Tensor) -> torch.Tensor:
    """Put a one before each row, (rows, width) -> (rows, 1 + width)."""
    return torch.cat([rows.new_ones(len(rows), 1), rows], dim=1)


def share_of_right(rows: Sequence[dict[str, str]], embed: Hear, weight: torch.Tensor, grammar: Grammar) -> float:
    """Share of recordings whose kinds, one or two at once, are those with the highest tags."""
    broader = {tag for kind in grammar.kinds.values() for tag in kind.part_of}
    kinds = [tag for tag in grammar.tags if tag in grammar.kinds and tag not in broader]
    columns = torch.tensor([grammar.tags.index(kind) for kind in kinds])
    right = 0
    for row in rows:
        sources = set(row["source"].split(AT_ONCE))
        mean = torch.from_numpy(embed(load_waveform(row["audio"]))).float().mean(0, keepdim=True)
        highest = (with_bias(mean) @ weight)[0, columns].topk(len(sources)).indices
        right += {kinds[column] for column in highest.tolist()} == sources
    return right / len(rows)


def margins_of(
    rows: Sequence[dict[str, str]], classify: Hear, classes: Sequence[str], grammar: Grammar
) -> torch.Tensor:
    """By how much, as logits, the highest class without a kind exceeds the highest with one, (recordings,)."""
    labels = {label for kind in grammar.kinds.values() for label in kind.labels}
    has_kind = torch.tensor([name in labels for name in classes])
    heard = [classify(load_waveform(row["audio"])).max(0) for row in rows]  # of all frames
    logits = torch.from_numpy(np.stack(heard)).float().logit(1e-4)
    return logits[:, ~has_kind].amax(1) - logits[:, has_kind].amax(1)


if __name__ == "__main__":
    main()
