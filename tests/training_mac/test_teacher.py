"""The teacher: mixtures that repeat, shares that add up, and a network that learns from them."""

import pytest
import torch

from modeling_mac import EatConfig, EatModel
from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import Clip
from training_mac.tagging import SpanTagger
from training_mac.teacher import EXCERPT, ConvTagger, MixtureDataset


SOURCES = ["dog", "rain"]


@pytest.fixture
def mixtures() -> MixtureDataset:
    torch.manual_seed(0)
    clips = [Clip(f"{row}.wav", ("x",), (), SOURCES[row % 2]) for row in range(8)]
    log_mels = [torch.randn(300, 128) - (2, 9)[row % 2] for row in range(8)]
    return MixtureDataset(clips, log_mels, SOURCES, MacFeatureExtractor(), seed=1)


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


def test_the_student_comes_to_agree_with_its_teacher() -> None:
    torch.manual_seed(0)
    config = EatConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, window_frames=64
    )
    teacher = ConvTagger(3, width=4)
    teacher.head.weight.data.mul_(20)
    tagger = SpanTagger(EatModel(config), num_sources=3, kept_patches=32, teacher=teacher).train()
    frozen = {name: weight.clone() for name, weight in teacher.named_parameters()}
    features = torch.randn(6, 64, 128)
    spans = torch.tensor([[window, 0, 4] for window in range(6)])
    optimizer = torch.optim.AdamW([weight for weight in tagger.parameters() if weight.requires_grad], 1e-2)
    losses = []
    for _ in range(20):
        beliefs = teacher.eval().classify(teacher.features(features), spans)
        loss = tagger(features, spans, beliefs.argmax(1))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(weight, frozen[name]) for name, weight in teacher.named_parameters())
