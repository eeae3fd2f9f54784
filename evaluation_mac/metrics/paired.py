"""Two models on the same clips: the mean difference, its interval, and how likely chance alone gives as much."""

import numpy as np


MOST_NUMBERS = 4_000_000  # drawn at once, so that tens of thousands of clips fit into memory


def paired_difference(first: np.ndarray, second: np.ndarray, resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """
    Compare two models clip by clip.

    Args:
        first, second: (clips,) scores of the same clips in the same order; a clip without one is NaN in either.
        resamples: Number of bootstrap samples, and of random signs.
        seed: Seed of both.

    Returns:
        `difference` (second less first), `low` and `high` of its 95 % bootstrap interval over clips, `p` of the
        two-sided sign-flip test, and `clips` counted. p is never below 1 / (resamples + 1).

    Raises:
        ValueError: No clip has a score of both.
    """
    difference = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    difference = difference[~np.isnan(difference)]
    if not len(difference):
        raise ValueError("expected clips that both models have scores of; there is none.")
    generator = np.random.default_rng(seed)
    clips = len(difference)
    at_once = max(1, MOST_NUMBERS // clips)
    counts = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    means = np.concatenate([difference[generator.integers(clips, size=(n, clips))].mean(axis=1) for n in counts])
    flipped = np.concatenate(
        [(generator.choice((-1.0, 1.0), size=(n, clips)) * difference).mean(axis=1) for n in counts]
    )
    by_chance = np.abs(flipped) >= abs(difference.mean()) - 1e-12
    low, high = np.percentile(means, (2.5, 97.5))
    return {
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "p": float((by_chance.sum() + 1) / (resamples + 1)),
        "clips": len(difference),
    }
