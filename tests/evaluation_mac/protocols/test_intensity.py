"""Loud and quiet patches: clusters, correlations, and the analysis of a small encoder."""

import numpy as np
import pytest
import torch

from evaluation_mac.metrics.intensity import WindowPatches, analyse, attention_scores, cluster_edges, kendall, look_at
from evaluation_mac.protocols.intensity import evaluate_intensity
from modeling_mac import EatConfig, EatModel
from processing_mac import MacFeatureExtractor


@pytest.fixture
def tower() -> EatModel:
    torch.manual_seed(0)
    return EatModel(
        EatConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, window_frames=128)
    ).eval()


@pytest.fixture
def extractor() -> MacFeatureExtractor:
    return MacFeatureExtractor(window_frames=128)


def test_clusters_are_found_where_they_are():
    values = np.concatenate([np.full(10 + n, center) for n, center in enumerate((-3.0, -1.0, 0.0, 2.0, 5.0))])
    assert cluster_edges(values + np.random.default_rng(0).normal(size=len(values)) * 0.01) == pytest.approx(
        [-2, -0.5, 1, 3.5], abs=0.1
    )


def test_ties_agree_as_published_and_count_for_nothing_alone():
    clusters = np.array([0, 0, 1, 1])
    assert kendall(clusters, np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx((1.0, 2 / 6, 1.0))
    assert kendall(clusters, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx((2 / 6 - 4 / 6, 2 / 6, -1.0))
    published, chance, alone = kendall(np.zeros(3), np.arange(3.0))
    assert (published, chance) == (1.0, 1.0) and np.isnan(alone)


def test_scores_are_the_attention_that_each_patch_gets(tower):
    window = torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0))
    scores = attention_scores(tower, window)
    tower.set_attn_implementation("eager")
    weights = tower(window, output_attentions=True).attentions
    expected = torch.stack([weight[0, :, 0, 1:].mean(dim=0) for weight in weights])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


def test_padding_is_left_out(tower, extractor):
    sound = (
        np.random.default_rng(0).normal(size=30_000).astype(np.float32) * 0.1
    )  # 185 frames: 8 rows of patches and 3
    windows = list(look_at(tower, extractor, {"array": sound, "sampling_rate": 16_000}, keep_rate=0.5))
    assert [len(window.intensity) for window in windows] == [64, 24]
    assert windows[0].scores.shape == (4, 64)
    assert windows[0].kept.sum() == 8  # of a whole window: 64, 32, 16, 8


def test_shares_are_those_of_the_clusters():
    intensity = np.repeat([-2.0, -1.0, 0.0, 1.0, 2.0], 10)
    kept = intensity > 0.5
    found = analyse([WindowPatches(intensity, intensity[None], kept)])
    assert found.kept.tolist() == [0, 0, 0, 1, 1]
    assert found.shares == pytest.approx([0.2] * 5)
    assert found.untied.item() == 1.0


def test_an_evaluation_has_a_row_a_window_and_a_picture(tower, extractor, tmp_path):
    pytest.importorskip("matplotlib")
    sound = np.random.default_rng(0).normal(size=30_000).astype(np.float32) * 0.1
    audio = {"array": sound, "sampling_rate": 16_000}
    named = [("a.wav", window) for window in look_at(tower, extractor, audio, keep_rate=0.5)]
    evaluation = evaluate_intensity(named, tmp_path, 0.5)
    assert [row["patches"] for row in evaluation.clips] == [64, 24]
    assert -1 <= evaluation.intervals["kendall_block_3"][0] <= evaluation.scores["kendall_block_3"] <= 1
    assert (tmp_path / "intensity.png").stat().st_size > 10_000
