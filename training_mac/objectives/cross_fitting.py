"""
Tags as one tells them of recordings that it has never heard: what a language model learns to speak of.

An encoder knows each of the some thousand recordings that it has learnt from by heart, and is right about all of
them. A language model that reads such scores learns to trust them blindly, and errs wherever the encoder does. Here
the groups of recordings are parted, and the tags of each scene are told from a teacher's embeddings by a regression
on the scenes that share no part with it (stacked generalisation, Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1).
These scores err as those of new recordings do. All regressions come from one pass, for the moments of scenes add.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import nn

from training_mac.data.data_error import DataError
from training_mac.objectives.teacher_targets import TEACHER_STEP, TeacherTargets


RIDGE = 0.02  # share of the embeddings' variance, which is 1, that is added to it
STEADY = 1e-4  # keeps the curve of a tag that is seldom heard near the common one


def cross_fit(targets: TeacherTargets, parts: int) -> list[torch.Tensor]:
    """
    Tell the tags of recordings from the teacher's embeddings of others.

    Args:
        targets: Tags, embeddings and groups of the recordings.
        parts: Number of parts that the groups fall into.

    Returns:
        Scores (logits) of the tags at each embedding of each recording, (frames, tags).

    Raises:
        ValueError: A recording has no groups, or all scenes share parts with some scene.
    """
    masks = torch.tensor(masks_of(targets, parts))
    frames = torch.cat(targets.embeddings).float()
    lengths = [len(embeddings) for embeddings in targets.embeddings]
    means, labels = mean_stretches(targets)
    centre, spread = means.mean(0), means.std(0) + 1e-3
    stretches, frames = (with_ones((one - centre) / spread) for one in (means, frames))
    counts = torch.tensor([len(one) for one in targets.stretches])
    owners = masks.repeat_interleave(counts), masks.repeat_interleave(torch.tensor(lengths))
    weights = fit_apart(stretches, labels, owners[0])
    slopes, offsets = fit_curves(tell(stretches, owners[0], weights), labels)
    return list((slopes * tell(frames, owners[1], weights) + offsets).split(lengths))


def mean_stretches(targets: TeacherTargets) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean embedding of each stretch of the recordings, (stretches, width), and its tags, (stretches, tags)."""
    means, labels = [], []
    for embeddings, stretches in zip(targets.embeddings, targets.stretches, strict=True):
        for first, end, ids in stretches:
            means.append(embeddings[frames_of(first, end, len(embeddings))].float().mean(0))
            labels.append(torch.zeros(len(targets.tags)).index_fill_(0, torch.tensor(ids, dtype=torch.long), 1.0))
    return torch.stack(means), torch.stack(labels)


def frames_of(first: float, end: float, frames: int) -> slice:
    """Find the embeddings from a first to an end second, of so many; one at least."""
    begin = min(int(first / TEACHER_STEP), frames - 1)
    return slice(begin, max(begin + 1, round(end / TEACHER_STEP)))


def with_ones(inputs: torch.Tensor) -> torch.Tensor:
    """Add a column of ones, for the constant of a regression."""
    return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)


def masks_of(targets: TeacherTargets, parts: int) -> list[int]:
    """
    The parts of each recording's groups, as `mask_of` gives them.

    Raises:
        ValueError: A recording has no groups.
    """
    if missing := [file for file, groups in zip(targets.files, targets.groups, strict=True) if not groups]:
        raise DataError(f"{missing[0]} does not say which recordings it is of: mix it anew.")
    return [mask_of(groups, parts) for groups in targets.groups]


def mask_of(groups: Iterable[str], parts: int) -> int:
    """The parts of a scene's groups as the bits of a number, the same on every machine."""
    mask = 0
    for group in groups:
        mask |= 1 << int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "big") % parts
    return mask


def fit_apart(inputs: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor) -> dict[int, torch.Tensor]:
    """
    Fit a ridge regression for each set of parts, on the rows that share none of them.

    Args:
        inputs: Standardised inputs with a last column of ones, (rows, width + 1).
        labels: 0 or 1, (rows, tags).
        masks: Parts of each row as bits, (rows,).

    Returns:
        Weights (width + 1, tags) by the parts that they have not heard.

    Raises:
        ValueError: No row is left for some set of parts.
    """
    moments = PartedMoments(inputs, labels, masks)
    return {mask: moments.fit(mask) for mask in moments.second}


class PartedMoments:
    """
    Moments of rows by the parts of these, of which a ridge regression on any of the parts is made.

    Args:
        inputs: Standardised inputs with a last column of ones, (rows, width + 1).
        labels: 0 or 1, (rows, tags).
        masks: Parts of each row as bits, (rows,).

    Attributes:
        second: Second moments of the inputs, (width + 1, width + 1), by the parts of the rows.
        towards: Moments of inputs and labels, (width + 1, tags), by the parts of the rows.
    """

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor):
        self.inputs, self.labels, self.masks = inputs, labels, masks
        self.second: dict[int, torch.Tensor] = {}
        self.towards: dict[int, torch.Tensor] = {}
        for mask in masks.unique().tolist():
            self.second[mask], self.towards[mask] = self.of_rows(masks == mask)
        self.penalty = torch.full((inputs.shape[1],), RIDGE)
        self.penalty[-1] = 0  # of the constant

    def of_rows(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the moments of the rows that are True in (rows,)."""
        inputs = self.inputs[chosen]
        return inputs.mT @ inputs, inputs.mT @ self.labels[chosen]

    def fit(self, mask: int, left_out: torch.Tensor | None = None) -> torch.Tensor:
        """
        Fit a ridge regression on the rows that share no part with a mask.

        Args:
            mask: Parts that it must not have heard, as bits.
            left_out: True for rows that it must not have heard either, (rows,).

        Returns:
            Weights, (width + 1, tags).

        Raises:
            ValueError: No row is left, or none beside those that are left out.
        """
        second = torch.zeros(len(self.penalty), len(self.penalty))
        towards = torch.zeros(len(self.penalty), self.labels.shape[1])
        for other in self.second:
            if not other & mask:
                second += self.second[other]
                towards += self.towards[other]
        if left_out is not None:
            unheard = self.of_rows(left_out & (self.masks & mask == 0))
            second -= unheard[0]
            towards -= unheard[1]
        if not second[-1, -1] > 0:  # this moment is the number of rows
            known = "" if left_out is None else ", or have the kind that is left out"
            raise DataError(f"All scenes share parts with some scene{known}; expected recordings of more groups.")
        second.diagonal().add_(self.penalty * second[-1, -1])
        return torch.linalg.solve(second, towards)


def tell(inputs: torch.Tensor, masks: torch.Tensor, weights: dict[int, torch.Tensor]) -> torch.Tensor:
    """Tell the tags of rows (rows, width + 1) by the weights that have not heard their parts, (rows, tags)."""
    told = torch.empty(len(inputs), next(iter(weights.values())).shape[1])
    for kind, weight in weights.items():
        told[masks == kind] = inputs[masks == kind] @ weight
    return told


def fit_curves(told: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Fit the logistic curves that make likelihoods of what is told, one for each tag, near a common one (Platt 1999).

    Args:
        told: What is told of each row, (rows, tags).
        labels: 0 or 1, (rows, tags).

    Returns:
        Slopes and offsets of the logits, (tags,) each.
    """
    tags = labels.shape[1:]
    slopes, offsets = torch.full(tags, 10.0, requires_grad=True), torch.full(tags, -5.0, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes, offsets], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        missed = nn.functional.binary_cross_entropy_with_logits(slopes * told + offsets, labels, reduction="sum")
        spread = (slopes - slopes.mean()).square().sum() + (offsets - offsets.mean()).square().sum()
        loss = missed / len(labels) + STEADY * spread
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return slopes.detach(), offsets.detach()
