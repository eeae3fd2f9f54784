"""Rank and similarity of tokens whose answers are known."""

import math

import numpy as np
import pytest

from evaluation_mac.metrics.token_geometry import (
    describe_tokens,
    effective_rank,
    energies,
    entropy_rank,
    mean_cosine,
)


@pytest.mark.parametrize("tau", [0.90, 0.95, 0.99])
def test_orthonormal_tokens_use_every_direction(tau) -> None:
    tokens = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 20)))[0].T  # 20 tokens of width 32
    assert effective_rank(energies(tokens), tau) == math.ceil(round(tau * 20, 9))
    assert entropy_rank(energies(tokens)) == pytest.approx(20)
    assert mean_cosine(tokens) == pytest.approx(0, abs=1e-12)


def test_equal_tokens_use_one_direction_and_none_without_their_mean() -> None:
    found, (curve, _) = describe_tokens(np.tile(np.random.default_rng(0).standard_normal(8), (5, 1)))
    assert found["rank_90"] == found["rank_99"] == 1
    assert found["entropy_rank"] == pytest.approx(1) and found["cosine"] == pytest.approx(1)
    assert found["centred_rank_99"] == 0 and curve[0] == pytest.approx(1)


def test_energies_of_a_diagonal() -> None:
    energy = energies(np.diag([2.0, 1.0, 1.0]))
    assert energy / energy.sum() == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    assert [effective_rank(energy, tau) for tau in (0.6, 0.7, 0.9)] == [1, 2, 3]
    assert entropy_rank(energy) == pytest.approx(2.8284, abs=1e-4)


def test_cosine_is_the_mean_over_pairs_of_different_tokens() -> None:
    tokens = np.random.default_rng(1).standard_normal((12, 5))
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    cosines, groups = unit @ unit.T, np.arange(12) % 3
    pairs = ~np.eye(12, dtype=bool)
    assert mean_cosine(tokens) == pytest.approx(cosines[pairs].mean())
    assert mean_cosine(tokens, groups) == pytest.approx(cosines[pairs & (groups[:, None] == groups)].mean())
    assert math.isnan(mean_cosine(tokens[:1]))
