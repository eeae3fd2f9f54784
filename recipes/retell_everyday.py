"""
Tells scenes anew: in general, where from other recordings nobody could tell what it is.

    python recipes/retell_everyday.py runs/everyday/scenes-0 runs/everyday/scenes-1

A language model that only learns what is true names something particular of all that it hears, for that is what every
caption does. Here the tags of each scene are told from the teacher's embeddings of scenes that share no recording with
it (`cross_fit`). Where that puts the kind of a recording far behind others, all that is said is what it is in general:
"an animal calls". Reads `scenes.csv` and `targets.safetensors` of the folders that `mix_everyday.py` wrote, and writes
`retold.csv` beside them. `cross_fitted_tags` of a stage of captions then teaches with the same tags (`--parts`).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch


sys.path.insert(0, str(Path(__file__).parent))

from everyday_grammar import Grammar
from prepare_esc50 import read_table, write_manifest

from training_mac.objectives.cross_fitting import cross_fit, frames_of
from training_mac.objectives.teacher_targets import TeacherTargets


# A kind is beyond telling if it is less likely than this and so many others are likelier.
UNLIKELY, BEHIND = 0.05, 8


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+", help="folders of mix_everyday.py")
    parser.add_argument("--parts", type=int, default=8, help="of the recordings' groups (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice among wordings (default: 0)")
    options = parser.parse_args(arguments)
    try:
        sets = [TeacherTargets.load(folder / "targets.safetensors") for folder in options.scenes]
        targets = TeacherTargets.join(sets)
        told = dict(zip(targets.files, cross_fit(targets, options.parts), strict=True))
        teller = Teller(targets, told, Grammar())
        for folder in options.scenes:
            rows = read_table(folder / "scenes.csv")
            retold = [teller.retell(row, np.random.default_rng([options.seed, n])) for n, row in enumerate(rows)]
            write_manifest(folder / "retold.csv", retold)
            changed = sum(before != after for before, after in zip(rows, retold, strict=True))
            print(f"{folder / 'retold.csv'}: {changed} of {len(rows)} scenes are told in more general terms")
    except (OSError, ValueError) as error:
        parser.error(str(error))


class Teller:
    """
    Tells scenes anew.

    Args:
        targets: Tags of the scenes' stretches.
        told: Scores of the tags (frames, tags) of each scene, by the name of its file.
        grammar: Grammar that makes the captions.
    """

    def __init__(self, targets: TeacherTargets, told: dict[str, torch.Tensor], grammar: Grammar):
        self.ids, self.told, self.grammar = targets.ids, told, grammar
        self.stretches = dict(zip(targets.files, targets.stretches, strict=True))
        self.particular = [targets.ids[name] for name in grammar.kinds if name not in grammar.general]

    def retell(self, row: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
        """
        Make the row of a scene with other captions, or the same row if all in it can be told.

        Raises:
            ValueError: The row does not say what it is of.
        """
        if not row.get("events"):
            raise ValueError(f"{row['audio']} does not say which recordings it is of, and when: mix it anew.")
        events = [(name, first, end) for name, first, end in json.loads(row["events"])]
        names = [self.name(row["audio"], *event) for event in events]
        if names == [name for name, _, _ in events]:
            return row
        wordings = [name for name in row if name.startswith("caption_")]
        return row | {wording: self.grammar.tell(names, row["relation"], rng) for wording in wordings}

    def name(self, audio: str, kind: str, first: float, end: float) -> str:
        """Name an event from a first to an end second: its kind, or what that is in general if nobody could tell."""
        general = self.grammar.general_of(kind)
        scores = self.scores(audio, first, end)
        if general is None or not len(scores):
            return kind
        own = scores[:, self.ids[kind]]
        behind = (scores[:, self.particular] > own.unsqueeze(1)).sum(1)
        return general if own.max().sigmoid() < UNLIKELY and behind.min() >= BEHIND else kind

    def scores(self, audio: str, first: float, end: float) -> torch.Tensor:
        """Collect what is told of the stretches that an event is heard in, (stretches, tags)."""
        told = self.told[audio]
        heard = [(start, stop) for start, stop, _ in self.stretches[audio] if start < end and stop > first]
        return torch.stack([told[frames_of(*stretch, len(told))].mean(0) for stretch in heard]) if heard else told[:0]


if __name__ == "__main__":
    main()
