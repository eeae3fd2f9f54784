"""SSAMBA's two losses and its masks against upstream's own."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_mac import SsambaConfig
from modeling_mac.conversion_ssamba_mac import convert_ssamba_state_dict
from modeling_mac.ssamba_pretraining_mac import SsambaForPreTraining, draw_mask
from modeling_mac.weight_files_mac import load_strictly


FIXTURE = Path(__file__).parents[1] / "fixtures" / "ssamba_tiny.safetensors"
OURS = {
    "gpredlayer.2.bias": "reconstruction_head.2.bias",
    "mask_embed": "mask_embed",
    "v.cls_token": "ssamba.embeddings.cls_token",
    "v.layers.0.mixer.A_log": "ssamba.layers.0.mixer.A_log",
    "v.layers.3.mixer.A_b_log": "ssamba.layers.3.mixer.A_b_log",
}


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE)


@pytest.fixture
def model(golden) -> SsambaForPreTraining:
    prefix = "sd.pretrain."
    weights = {name.removeprefix(prefix): weight for name, weight in golden.items() if name.startswith(prefix)}
    config, weights = convert_ssamba_state_dict(weights, for_pretraining=True)
    return load_strictly(SsambaForPreTraining, config, weights, "the golden model")


def test_losses_and_gradients(golden, model):
    outputs = model(golden["in.fbank"], golden["in.mask_index"])
    for name, value in (("nce", outputs.contrastive), ("mse", outputs.reconstruction), ("joint", outputs.loss)):
        torch.testing.assert_close(value, golden[f"out.pretrain.{name}"], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(outputs.accuracy, golden["out.pretrain.accuracy"])
    outputs.loss.backward()
    parameters = dict(model.named_parameters())
    for name, ours in OURS.items():
        torch.testing.assert_close(parameters[ours].grad, golden[f"out.pretrain.grad.{name}"], rtol=1e-4, atol=1e-5)


def test_two_masks_have_a_pass_each(golden, model):
    first, second = golden["in.mask_index"], golden["in.mask_index"].flip(0)
    both = model(golden["in.fbank"], first, second)
    assert torch.equal(both.contrastive, model(golden["in.fbank"], first).contrastive)
    assert torch.equal(both.reconstruction, model(golden["in.fbank"], second).reconstruction)


@pytest.mark.parametrize("count", [100, 400])
def test_masks_are_upstreams(golden, count):
    assert draw_mask(count, 64, 8, random.Random(0)) == golden[f"out.mask_ids.seed0_{count}"].tolist()


def test_what_cannot_be_masked_is_refused():
    with pytest.raises(ValueError, match="511 of 512 patches to mask; expected 1 to 510"):
        draw_mask(511, 64, 8, random.Random(0))
    with pytest.raises(ValueError, match="`stride` is 10"):
        SsambaForPreTraining(SsambaConfig(hidden_size=32, num_hidden_layers=2, stride=10))


def test_it_learns():
    """From new weights, on one batch."""
    torch.manual_seed(0)
    model = SsambaForPreTraining(SsambaConfig(hidden_size=32, num_hidden_layers=2, window_frames=128))
    features = torch.randn(2, 128, 128)
    mask = torch.tensor([draw_mask(20, 8, 8, random.Random(seed)) for seed in range(2)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        outputs = model.train()(features, mask)
        losses.append(outputs.loss.item())
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
