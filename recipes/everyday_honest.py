"""
Tags of scenes as an encoder that has never been told any tags hears them, and as nobody has told it of these scenes.

An encoder that has been taught tags knows its recordings by heart. One that has only imitated a teacher is honest
about them: a ridge regression on its tokens, fitted on the scenes that share no recording with a scene
(`cross_fitting.py`), tells the tags of that scene as the encoder that was taught tells those of new recordings. A
regression that has not learnt a kind of sound either tells what the encoder would of a kind that nobody has named to
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from everyday_grammar import Grammar
from everyday_mixed import Scene, rows_between
from everyday_rows import Encoding
from everyday_state import load_parts

from processing_mac.whole_files_mac import write_file_whole
from training_mac.objectives.cross_fitting import PartedMoments, fit_curves, tell, with_ones


# The encoder that was taught tags tells them of new recordings somewhat better than a regression on the one that was
# not. So each scene is told partly by a regression on all scenes, itself too, up to this share.
TRUST = 0.5
EVERYONE = 0  # parts that a head of all scenes must not have learnt from: none
COMPONENTS = 1024  # principal components of the tokens that the tags are told from
SMALLEST = 1e-7  # least variance of a component that is taken for more than rounding
# Tags that an imitation of the teacher hardly hears, and the one along with which each moves: what the encoder's own
# head hears of them, beside what it hears of speech, stays.
CERTAIN = {"man": "speech", "woman": "speech", "child": "speech", "conversation": "speech"}


@dataclass(frozen=True, eq=False)
class Evidence:
    """
    What is told of scenes.

    Args:
        heard: Number of rows of each scene that are no padding.
        scores: Scores of the tags in each row of each scene, mostly by others' recordings, (rows, tags) float16.
        unknown: The same by those that have not learnt the kind of sound either, by the number of the scene, for
            scenes of one sound of a kind that can be told in general.
    """

    heard: list[int]
    scores: list[torch.Tensor]
    unknown: dict[int, torch.Tensor]

    def save(self, path: Path) -> None:
        """Write it as one file that is whole or not there."""
        with write_file_whole(path) as temporary:
            torch.save(vars(self), temporary)

    @classmethod
    def load(cls, path: Path) -> "Evidence":
        """
        Load what `save` wrote.

        Raises:
            ValueError: The file is something else.
        """
        return cls(**load_parts(path, ("heard", "scores", "unknown"), torch.device("cpu")))


def gather_evidence(
    scenes: Sequence[Scene],
    encodings: Sequence[Encoding],
    own: tuple[torch.Tensor, torch.Tensor],
    grammar: Grammar,
    rng: np.random.Generator,
) -> Evidence:
    """
    Tell the tags of scenes honestly.

    Args:
        scenes: Scenes.
        encodings: What an encoder that was told no tags makes of each.
        own: Head that was fitted on its tokens in training, weight (columns * dim, tags) and bias (tags,).
        grammar: Grammar of the tags.
        rng: Source of the share of each scene that it is trusted with (`TRUST`).

    Raises:
        ValueError: All scenes share parts with some scene, or have its kind.
    """
    honest = HonestHeads(scenes, encodings, own, grammar)
    heads = {mask: honest.head(mask) for mask in honest.weights}
    everyone = honest.head(EVERYONE)
    scores = []
    for scene, encoding in zip(scenes, encodings, strict=True):
        others, trust = apply(heads[scene.mask], encoding), float(rng.uniform(0, TRUST))
        scores.append(others.lerp(apply(everyone, encoding), trust).half())
    unknown: dict[int, torch.Tensor] = {}
    asked: dict[tuple[int, str], list[int]] = {}
    for number, scene in enumerate(scenes):
        if scene.unknown_as(grammar) is not None:
            asked.setdefault((scene.mask, scene.events[0][0]), []).append(number)
    for key, numbers in asked.items():
        head = honest.head(*key)
        unknown |= {number: apply(head, encodings[number]).half() for number in numbers}
    return Evidence([one.heard for one in encodings], scores, unknown)


def apply(head: tuple[torch.Tensor, torch.Tensor], encoding: Encoding) -> torch.Tensor:
    """Give the scores of a head in the rows of an encoding, (rows, tags)."""
    weight, bias = head
    return encoding.rows.float() @ weight + bias


class HonestHeads:
    """
    Heads that tell tags from tokens, each fitted on some of the scenes.

    Args:
        scenes, encodings, own, grammar: As in `gather_evidence`.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        encodings: Sequence[Encoding],
        own: tuple[torch.Tensor, torch.Tensor],
        grammar: Grammar,
    ):
        self.ids = {tag: number for number, tag in enumerate(grammar.tags)}
        means, self.labels, masks = mean_stretches(scenes, encodings, len(self.ids))
        self.centre, self.project = principal_components(means)
        inputs = with_ones((means - self.centre) @ self.project)
        self.moments = PartedMoments(inputs, self.labels, masks)
        self.weights = {mask: self.moments.fit(mask) for mask in sorted({scene.mask for scene in scenes})}
        self.slopes, self.offsets = fit_curves(tell(inputs, masks, self.weights), self.labels)
        self.own = own

    def head(self, mask: int, unknown: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Fit a head.

        Args:
            mask: Parts of the recordings' groups that it must not have learnt from, as bits.
            unknown: Kind of sound that it must not have learnt either.

        Returns:
            Weight, (columns * dim, tags), and bias, (tags,).
        """
        left_out = None if unknown is None else self.labels[:, self.ids[unknown]] > 0
        known = unknown is None and mask in self.weights
        fitted = self.weights[mask] if known else self.moments.fit(mask, left_out)
        fitted = fitted * self.slopes  # (components + 1, tags)
        weight = self.project @ fitted[:-1]
        bias = fitted[-1] + self.offsets - self.centre @ weight
        tags, along = ([self.ids[tag] for tag in some] for some in (CERTAIN, CERTAIN.values()))
        for told, own in zip((weight, bias), self.own, strict=True):
            told[..., tags] = told[..., along] + own[..., tags] - own[..., along]
        return weight, bias


def mean_stretches(
    scenes: Sequence[Scene], encodings: Sequence[Encoding], tags: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Collect the mean row of each stretch of the scenes, and of the padding after each, of which no tag is true.

    Returns:
        The means, (stretches, columns * dim), their tags, (stretches, tags), and their parts as bits, (stretches,).
    """
    means, labels, masks = [], [], []
    for scene, encoding in zip(scenes, encodings, strict=True):
        heard = [(encoding.rows[rows_between(first, end, encoding.heard)], ids) for first, end, ids in scene.stretches]
        if len(padding := encoding.padding):
            heard.append((padding, []))
        for rows, ids in heard:
            means.append(rows.float().mean(0))
            labels.append(torch.zeros(tags).index_fill_(0, torch.tensor(ids, dtype=torch.long), 1.0))
            masks.append(scene.mask)
    return torch.stack(means), torch.stack(labels), torch.tensor(masks)


def principal_components(means: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Find the principal components of rows (rows, width), all of variance 1.

    Returns:
        The mean of the rows, (width,), and what makes components of rows less that mean, (width, components).
    """
    centre = means.mean(0)
    centred = means - centre
    variances, directions = torch.linalg.eigh(centred.mT @ centred / len(means))
    kept = min(COMPONENTS, means.shape[1], len(means) - 1)
    variances, directions = variances.flip(0)[:kept].clamp(min=SMALLEST), directions.flip(1)[:, :kept]
    return centre, directions / variances.sqrt()
