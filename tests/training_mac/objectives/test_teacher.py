"""The teacher: mixtures that repeat, shares that add up, and a network that learns from them."""

import pytest
import torch

from modeling_mac import EatConfig, EatModel
from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import Clip
from training_mac.examples.scenes import SceneMaker
from training_mac.objectives.tags import SpanTagger
from training_mac.objectives.teacher import EXCERPT, ConvTagger, MixtureDataset
from training_mac.recipe.data_fields import DataRecipe


SOURCES = ["dog", "rain"]


def make_mixtures(sources: list[str]) -> MixtureDataset:
    torch.manual_seed(0)
    scenes = [name if name == "silence" else None for name in sources]
    clips = [Clip(f"{row}.wav", ("x",), (), sources[row % 2], scene=scenes[row % 2]) for row in range(8)]
    log_mels = [torch.randn(300, 128) - (2, 9)[row % 2] for row in range(8)]
    maker = SceneMaker(DataRecipe("", gain_db=6, time_shift=True), MacFeatureExtractor())
    return MixtureDataset(clips, log_mels, sources, maker, seed=1)


@pytest.fixture
def mixtures() -> MixtureDataset:
    return make_mixtures(SOURCES)


def test_a_mixture_depends_on_seed_epoch_and_row_alone(mixtures: MixtureDataset) -> None:
    first = mixtures[3]
    mixtures[4]
    torch.testing.assert_close(mixtures[3], first, rtol=0, atol=0)
    mixtures.set_epoch(1)
    assert not torch.equal(mixtures[3]["input_features"], first["input_features"])
    assert first["input_features"].shape == (EXCERPT, 128)


def test_shares_add_up_and_the_rows_own_source_has_the_larger(mixtures: MixtureDataset) -> None:
    for epoch in range(5):
        mixtures.set_epoch(epoch)
        for row in range(len(mixtures)):
            labels = mixtures[row]["labels"]
            assert labels.sum() == pytest.approx(1) and labels[row % 2] >= 0.5


def test_silence_is_part_of_no_mixture() -> None:
    mixtures = make_mixtures(["dog", "silence"])
    labels = torch.stack([mixtures[row]["labels"] for row in range(8)])
    assert labels[1::2].eq(torch.tensor([0.0, 1.0])).all() and labels[::2].eq(torch.tensor([1.0, 0.0])).all()


def test_it_learns_the_shares(mixtures: MixtureDataset) -> None:
    torch.manual_seed(0)
    teacher = ConvTagger(len(SOURCES), width=8).train()
    optimizer = torch.optim.AdamW(teacher.parameters(), 3e-3)
    for epoch in range(12):
        mixtures.set_epoch(epoch)
        examples = [mixtures[row] for row in range(len(mixtures))]
        batch = {name: torch.stack([example[name] for example in examples]) for name in examples[0]}
        outputs = teacher(**batch)
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
    assert (outputs["logits"].argmax(1) == batch["labels"].argmax(1)).float().mean() >= 0.75


def test_a_span_is_judged_by_its_own_rows_alone() -> None:
    torch.manual_seed(0)
    teacher = ConvTagger(3, width=8).eval()
    features = torch.rand(2, 8, 32)
    changed = features.clone()
    changed[0, 4:] += 1
    spans = torch.tensor([[0, 0, 4], [1, 2, 8]])
    torch.testing.assert_close(teacher.classify(features, spans), teacher.classify(changed, spans))
    assert not torch.equal(
        teacher.classify(features, torch.tensor([[0, 0, 5]])), teacher.classify(changed, torch.tensor([[0, 0, 5]]))
    )


def test_the_student_comes_to_agree_with_its_teachers() -> None:
    torch.manual_seed(0)
    config = EatConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, window_frames=64
    )
    teachers = [ConvTagger(3, width=4), ConvTagger(3, width=8)]
    for teacher in teachers:
        teacher.head.weight.data.mul_(20)
    tagger = SpanTagger(EatModel(config), num_sources=3, kept_patches=32, teachers=teachers).train()
    frozen = [weight.clone() for teacher in teachers for weight in teacher.parameters()]
    features = torch.randn(6, 64, 128)
    spans = torch.tensor([[window, 0, 4] for window in range(6)])
    optimizer = torch.optim.AdamW([weight for weight in tagger.parameters() if weight.requires_grad], 1e-2)
    losses = []
    for _ in range(20):
        beliefs = torch.stack([one.eval().classify(one.features(features), spans) for one in teachers]).mean(0)
        loss = tagger(features, spans, beliefs.argmax(1))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    weights = [weight for teacher in teachers for weight in teacher.parameters()]
    assert all(torch.equal(weight, before) for weight, before in zip(weights, frozen, strict=True))


def test_two_teachers_say_the_mean_of_what_they_believe() -> None:
    """A student that says it, and hears nothing, is only as far off as what it should hear is large."""
    torch.manual_seed(0)
    config = EatConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, window_frames=64
    )
    teachers = [ConvTagger(3, width=4).eval(), ConvTagger(3, width=8).eval()]
    for teacher in teachers:
        teacher.head.weight.data.mul_(20)
    tagger = SpanTagger(EatModel(config), num_sources=3, kept_patches=32, teachers=teachers).eval()
    torch.nn.init.zeros_(tagger.imitate.weight)
    torch.nn.init.zeros_(tagger.imitate.bias)
    windows, spans = torch.randn(2, 64, 128), torch.tensor([[0, 0, 4], [1, 0, 4]])
    tokens, row = torch.randn(2, 4, 32), torch.arange(4).expand(2, -1)
    features = [teacher.features(windows) for teacher in teachers]
    said = [teacher.classify(each, spans).softmax(1) for teacher, each in zip(teachers, features, strict=True)]
    heard = tagger.teacher_norm(torch.cat(features, 2).flatten(0, 1)).square().mean()
    mean = ((said[0] + said[1]) / 2).log().repeat(2, 1)
    torch.testing.assert_close(tagger.imitation_loss(windows, spans, mean, tokens, row), heard)
    assert tagger.imitation_loss(windows, spans, said[0].log().repeat(2, 1), tokens, row) > heard + 1e-3


def test_stripes_are_masked_only_if_asked_for(mixtures: MixtureDataset) -> None:
    mixtures.scenes = SceneMaker(DataRecipe(""), MacFeatureExtractor())
    mixtures.log_mels = [torch.rand(EXCERPT, 128) for _ in range(8)]
    plain = [mixtures[row]["input_features"] for row in range(8)]
    mixtures.scenes = SceneMaker(DataRecipe("", spec_augment=True), MacFeatureExtractor())
    masked = [mixtures[row]["input_features"] for row in range(8)]
    assert all(len(one.unique()) > len(other.unique()) for one, other in zip(plain, masked, strict=True))
