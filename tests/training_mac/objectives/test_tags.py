"""The tagger reads the right tokens and learns."""

from contextlib import nullcontext

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


def make_connector(tower, connector_type: str, **fields) -> torch.nn.Module:
    config = MacConfig(
        audio_config=tower.config,
        text_config={"model_type": "mamba2", "vocab_size": 64, "hidden_size": 32, "num_heads": 8, "head_dim": 8},
        audio_token_id=1,
        connector_type=connector_type,
        **fields,
    )
    return CONNECTORS[connector_type](config)


# What one input of the connector's MLP is the mean of, from (windows, 4 rows, 8 columns, dim).
READ = {
    "concat": lambda grid: grid.mean(2),
    "stack": lambda grid: grid.unflatten(1, (2, 2)).mean((2, 3)),
    "time_major": lambda grid: grid.flatten(1, 2),
    "frequency_major": lambda grid: grid.transpose(1, 2).flatten(1, 2),
}


@pytest.mark.parametrize("connector_type", READ)
def test_the_head_becomes_a_part_of_the_connector(connector_type: str) -> None:
    tower = make_tower()
    connector = make_connector(tower, connector_type, **({"stack_size": 2} if connector_type == "stack" else {}))
    tagger = SpanTagger(tower, num_sources=5, kept_patches=32)
    tagger.norm.running_mean.normal_()
    tagger.norm.running_var.uniform_(0.5, 2)
    tagger.eval().hand_over(connector)
    tokens = torch.randn(2, 32, 32)  # (windows, 4 rows * 8, dim)
    scores = connector.linear_1(connector.arrange(tokens))[..., :5] - DOUBT
    read = READ[connector_type](tokens.unflatten(1, (4, 8)))
    expected = tagger.head(tagger.norm(read.flatten(0, 1))).unflatten(0, read.shape[:2])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    first = {name: weight.clone() for name, weight in connector.state_dict().items()}
    tagger.hand_over(connector)  # a recipe with several stages of tags does it after each
    assert all(torch.equal(weight, first[name]) for name, weight in connector.state_dict().items())


@pytest.mark.parametrize("connector_type", ["scan", "gated_cnn", "mean_pool"])
def test_a_connector_that_cannot_take_the_head_is_left_alone(connector_type: str) -> None:
    """One that mixes the tokens first is refused; one without an MLP goes without."""
    tower = make_tower()
    connector = make_connector(tower, connector_type)
    before = {name: weight.clone() for name, weight in connector.state_dict().items()}
    refused = pytest.raises(DataError, match=f"{type(connector).__name__}.*connector_type")
    with nullcontext() if connector_type == "mean_pool" else refused:
        SpanTagger(tower, num_sources=5, kept_patches=32).hand_over(connector)
    assert all(torch.equal(weight, before[name]) for name, weight in connector.state_dict().items())


def test_more_sources_than_units_are_refused() -> None:
    tower = make_tower()
    with pytest.raises(DataError, match="`connector_hidden_size` is 4; 5 sources need as many units"):
        SpanTagger(tower, 5, kept_patches=32).hand_over(make_connector(tower, "concat", connector_hidden_size=4))


def test_a_stage_is_refused_before_it_trains(write_recipe, train) -> None:
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1}
    audio = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = {"connector_type": "scan", "text_config": text, "audio_config": {**audio, "window_frames": 512}}
    recipe = write_recipe(model=model, stages=[{"objective": "tags"}, {"objective": "captions"}])
    with pytest.raises(ValueError, match=r"Stage 1: A stage of tags .* ScanConnector"):
        train(recipe)


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
