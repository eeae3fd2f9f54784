"""
How many directions a clip's audio tokens use, and how alike they are: numbers in, numbers out.

The paper (arXiv 2509.15680) reports a tau-effective rank and a mean cosine, without tau and without saying whether the
mean token is removed. So every measure is given for three tau, with and without the mean, and beside them a rank that
needs no tau. All is computed in float64.
"""

import numpy as np


TAUS = (0.90, 0.95, 0.99)
RANKS = tuple(f"rank_{round(100 * tau)}" for tau in TAUS)
TOLERANCE = 1e-12  # of an energy: 18 of 20 equal directions hold exactly 0.9 of it, whatever the rounding


def energies(tokens: np.ndarray) -> np.ndarray:
    """(n, d) tokens -> (min(n, d),) squared singular values, the greatest first."""
    return np.linalg.svd(np.asarray(tokens, dtype=np.float64), compute_uv=False) ** 2


def effective_rank(energy: np.ndarray, tau: float) -> int:
    """Least number of directions that hold the share tau of the energy; 0 where there is none."""
    total = energy.sum()
    if total <= 0:
        return 0
    return int(np.searchsorted(np.cumsum(energy), tau * total * (1 - TOLERANCE)) + 1)


def entropy_rank(energy: np.ndarray) -> float:
    """Exponential of the entropy of the singular values over their sum (Roy and Vetterli, 2007); 0 for no energy."""
    singular = np.sqrt(energy)
    if singular.sum() <= 0:
        return 0.0
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def mean_cosine(tokens: np.ndarray, groups: np.ndarray | None = None) -> float:
    """
    Mean cosine of all pairs of different tokens.

    Args:
        tokens: (n, d); tokens of length 0 have the cosine 0 with all others.
        groups: (n,) integers; if given, only pairs of one group count.

    Returns:
        The mean, in -1..1; NaN if there is no pair.
    """
    tokens = np.asarray(tokens, dtype=np.float64)
    length = np.linalg.norm(tokens, axis=1, keepdims=True)
    unit = np.divide(tokens, length, out=np.zeros_like(tokens), where=length > 0)
    groups = np.zeros(len(unit), dtype=int) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(groups)
    pairs = (counts * (counts - 1)).sum()
    if not pairs:
        return float("nan")
    sums = np.zeros((len(counts), unit.shape[1]))
    np.add.at(sums, groups, unit)
    # |sum of units|^2 holds every ordered pair once, and each token with itself: 1, or 0 if it has no length.
    return float(((sums**2).sum() - (length > 0).sum()) / pairs)


def describe_tokens(
    tokens: np.ndarray, steps: np.ndarray | None = None, bands: np.ndarray | None = None
) -> tuple[dict[str, float], list[np.ndarray]]:
    """
    All measures of one clip's tokens.

    Args:
        tokens: (n, d) without summary token and padding; n at least 2.
        steps, bands: (n,) time step and frequency band of each token, where it has one.

    Returns:
        `rank_90`, `rank_95`, `rank_99`, `entropy_rank`, `cosine`, `cosine_in_step`, `cosine_in_band`, `tokens` (n),
        and each rank of a tau over min(n, d), `rank_95_share`; once more as `centred_...` with the mean token removed.
        And the cumulative shares of the energy, (min(n, d),), first not centred and then centred.
    """
    tokens = np.asarray(tokens, dtype=np.float64)
    found: dict[str, float] = {"tokens": len(tokens)}
    curves = []
    for prefix, part in (("", tokens), ("centred_", tokens - tokens.mean(axis=0))):
        # What is left of equal tokens after their mean is rounding, not a direction.
        part = np.where(np.abs(part) <= TOLERANCE * np.abs(tokens).max(initial=0), 0.0, part)
        energy = energies(part)
        found |= {f"{prefix}{name}": effective_rank(energy, tau) for name, tau in zip(RANKS, TAUS, strict=True)}
        found |= {f"{prefix}{name}_share": found[f"{prefix}{name}"] / len(energy) for name in RANKS}
        found[f"{prefix}entropy_rank"] = entropy_rank(energy)
        found[f"{prefix}cosine"] = mean_cosine(part)
        for name, groups in (("step", steps), ("band", bands)):
            if groups is not None:
                found[f"{prefix}cosine_in_{name}"] = mean_cosine(part, groups)
        curves.append(np.cumsum(energy) / max(energy.sum(), np.finfo(float).tiny))
    return found, curves
