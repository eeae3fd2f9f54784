"""The tagger reads the right tokens and learns."""

import pytest
import torch

from modeling_mac import EatConfig, EatModel, MacConfig
from modeling_mac.connector_mac import CONNECTORS
from processing_mac.dataset_mac import Clip
from training_mac.data.data_error import DataError
from training_mac.objectives.tags import DOUBT, PART, SpanCollator, SpanTagger, draw_parts, list_sources


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
    of_wholes, of_parts = outputs["logits"].argmax(1).chunk(2)
    assert losses[-1] < losses[0] and torch.equal(of_wholes, labels) and torch.equal(of_parts, labels)


def test_parts_lie_anywhere_in_their_spans() -> None:
    torch.manual_seed(0)
    spans = torch.tensor([[0, 0, 10], [3, 10, 20], [5, 7, 9]]).repeat(200, 1)
    window, first, end = draw_parts(spans).view(200, 3, 3).unbind(2)
    assert (window == torch.tensor([0, 3, 5])).all() and (end - first == torch.tensor([PART, PART, 2])).all()
    assert first.amin(0).tolist() == [0, 10, 7] and end.amax(0).tolist() == [10, 20, 9]


@pytest.mark.parametrize("connector_type", ["concat", "time_major"])
def test_the_head_becomes_a_part_of_the_connector(connector_type: str) -> None:
    tower = make_tower()
    config = MacConfig(
        audio_config=tower.config,
        text_config={"model_type": "mamba2", "vocab_size": 64, "hidden_size": 32, "num_heads": 8, "head_dim": 8},
        audio_token_id=1,
        connector_type=connector_type,
    )
    connector = CONNECTORS[connector_type](config)
    tagger = SpanTagger(tower, num_sources=5, kept_patches=32)
    tagger.norm.running_mean.normal_()
    tagger.norm.running_var.uniform_(0.5, 2)
    tagger.eval().hand_over(connector)
    tokens = torch.randn(2, 32, 32)  # (windows, 4 rows * 8, dim)
    scores = connector.linear_1(connector.arrange(tokens))[..., :5] - DOUBT
    read = tokens.unflatten(1, (4, 8)).mean(2) if connector_type == "concat" else tokens
    expected = tagger.head(tagger.norm(read.flatten(0, 1))).unflatten(0, read.shape[:2])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    first = {name: weight.clone() for name, weight in connector.state_dict().items()}
    tagger.hand_over(connector)  # a recipe with several stages of tags does it after each
    assert all(torch.equal(weight, first[name]) for name, weight in connector.state_dict().items())


@pytest.mark.parametrize("connector_type", ["scan", "gated_cnn"])
def test_the_head_is_not_handed_to_a_connector_that_mixes_first(connector_type: str) -> None:
    tower = make_tower()
    config = MacConfig(
        audio_config=tower.config,
        text_config={"model_type": "mamba2", "vocab_size": 64, "hidden_size": 32, "num_heads": 8, "head_dim": 8},
        audio_token_id=1,
        connector_type=connector_type,
    )
    connector = CONNECTORS[connector_type](config)
    before = {name: weight.clone() for name, weight in connector.state_dict().items()}
    with pytest.raises(DataError, match=f"{type(connector).__name__}.*connector_type"):
        SpanTagger(tower, num_sources=5, kept_patches=32).hand_over(connector)
    assert all(torch.equal(weight, before[name]) for name, weight in connector.state_dict().items())


def test_spans_come_in_patch_rows() -> None:
    collate = SpanCollator(["dog", "rain"], patch_size=16)
    example = {"input_features": torch.zeros(1, 64, 128), "spans": [(0, 20, "rain"), (20, 64, "dog")]}
    batch = collate([example, example])
    assert batch["spans"].tolist() == [[0, 0, 1], [0, 1, 4], [1, 0, 1], [1, 1, 4]]
    assert batch["labels"].tolist() == [1, 0, 1, 0]


def test_a_clip_without_a_source_is_named() -> None:
    with pytest.raises(ValueError, match=r"needs a `source` for every clip; b.wav has none"):
        list_sources([Clip("a.wav", ("x",), (), "dog"), Clip("b.wav", ("x",))])


def test_a_span_goes_on_in_the_windows_of_its_own_clip() -> None:
    """Clips of 10.24 s and more have several windows: the second clip's is not the second."""
    collate = SpanCollator(["dog", "rain"], patch_size=16)
    long = {"input_features": torch.zeros(3, 64, 128), "spans": [(0, 80, "rain"), (80, 132, "dog")]}
    short = {"input_features": torch.ones(1, 64, 128), "spans": [(0, 5, "dog"), (64, 64, "rain"), (9, 9, "rain")]}
    batch = collate([long, short])
    # The dog's last 4 frames are less than a patch of the third window; nothing is left of the rain that was cut off.
    assert batch["spans"].tolist() == [[0, 0, 4], [1, 0, 1], [1, 1, 4], [3, 0, 1]]
    assert batch["labels"].tolist() == [1, 1, 0, 0]
    assert batch["input_features"][3].eq(1).all()
