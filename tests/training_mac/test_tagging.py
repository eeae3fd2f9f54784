"""The tagger reads the right tokens; whitened patches are white."""

import pytest
import torch

from modeling_mac import EatConfig, EatModel
from processing_mac.dataset_mac import Clip
from training_mac.tagging import SpanCollator, SpanTagger, list_sources, whiten_patches


def make_tower() -> EatModel:
    torch.manual_seed(0)
    return EatModel(
        EatConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, window_frames=64)
    )


def test_a_span_is_the_mean_of_its_tokens() -> None:
    tower = make_tower()
    tagger = SpanTagger(tower, num_sources=3, kept_patches=8).eval()
    features = torch.randn(2, 64, 128)
    spans, labels = torch.tensor([[0, 0, 1], [1, 2, 4]]), torch.tensor([0, 2])
    tokens = tower(features).last_hidden_state[:, 1:]  # (windows, 4 rows * 8, dim)
    means = torch.stack([tokens[0, :8].mean(0), tokens[1, 16:32].mean(0)])
    expected = tagger.head(tagger.norm(means))
    torch.testing.assert_close(tagger(features, spans, labels)["logits"], expected)


def test_it_learns_from_a_part_of_the_patches() -> None:
    tagger = SpanTagger(make_tower(), num_sources=2, kept_patches=16).train()
    features = torch.randn(8, 64, 128) + torch.tensor([0.0] * 4 + [0.3] * 4)[:, None, None]
    spans = torch.tensor([[window, 0, 4] for window in range(8)])
    labels = torch.tensor([0] * 4 + [1] * 4)
    optimizer = torch.optim.AdamW(tagger.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        outputs = tagger(features, spans, labels)
        loss = outputs["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and torch.equal(outputs["logits"].argmax(1), labels)


def test_whitened_patches_have_equal_variance() -> None:
    tower = make_tower()
    level = torch.randn(200, 1, 1) * 5
    windows = level + torch.randn(200, 64, 128)
    whiten_patches(tower.embeddings, list(windows), ridge=0.0)
    patches = tower.embeddings.patch_embedding(windows.unsqueeze(1)).permute(0, 2, 3, 1).reshape(-1, 32)
    torch.testing.assert_close(patches.mean(0), torch.zeros(32), atol=1e-2, rtol=0)
    torch.testing.assert_close(torch.cov(patches.T), torch.eye(32), atol=2e-2, rtol=0)


def test_spans_come_in_patch_rows() -> None:
    collate = SpanCollator(["dog", "rain"], patch_size=16)
    example = {"input_features": torch.zeros(1, 64, 128), "spans": [(0, 20, "rain"), (20, 64, "dog")]}
    batch = collate([example, example])
    assert batch["spans"].tolist() == [[0, 0, 1], [0, 1, 4], [1, 0, 1], [1, 1, 4]]
    assert batch["labels"].tolist() == [1, 0, 1, 0]


def test_a_clip_without_a_source_is_named() -> None:
    with pytest.raises(ValueError, match=r"needs a `source` for every clip; b.wav has none"):
        list_sources([Clip("a.wav", ("x",), (), "dog"), Clip("b.wav", ("x",))])
