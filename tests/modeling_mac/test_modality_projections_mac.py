"""Projections by modality: Mixture-of-Mamba's meaning in Mamba-2, and nothing else of the model changed."""

from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from transformers import Mamba2Config

from modeling_mac import MacForConditionalGeneration
from modeling_mac.modeling_mamba2_mac import Mamba2MacMixer


BOTH = ["in_proj", "out_proj"]
FIXTURES = Path(__file__).parents[1] / "fixtures"


def drawn_apart(model: MacForConditionalGeneration) -> MacForConditionalGeneration:
    """Give audio projections that differ from the text's, so that a token on the wrong one shows."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "_audio." in name:
            weight.data.add_(0.5 * torch.randn_like(weight) * weight.std())
    return model


@pytest.fixture
def parted(make_mac) -> MacForConditionalGeneration:
    return drawn_apart(make_mac(modality_projections=BOTH))


@torch.no_grad()
def test_each_token_goes_through_its_own_projections():
    golden = load_file(FIXTURES / "mixture_of_mamba_tiny.safetensors")
    config = Mamba2Config(hidden_size=32, num_heads=4, head_dim=16, state_size=16, n_groups=1, num_hidden_layers=1)
    mixer = Mamba2MacMixer(config, 0, True, BOTH)
    weights = {
        name.removeprefix("sd.mamba2.").replace(".experts.0.", ".").replace("_proj.experts.1.", "_proj_audio."): tensor
        for name, tensor in golden.items()
        if name.startswith("sd.mamba2.")
    }
    mixer.load_state_dict(weights)
    tokens, is_audio = golden["in.hidden_states"], golden["in.modality"] == 1
    torch.testing.assert_close(mixer(tokens, is_audio=is_audio), golden["out.mamba2"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixer(tokens), golden["out.mamba2.dense_text"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("names", [BOTH, ["in_proj"], ["out_proj"]])
def test_copies_of_a_dense_model_change_nothing(names, make_mac, make_inputs, tmp_path):
    dense = make_mac()
    dense.save_pretrained(tmp_path / "dense")
    config = type(dense.config).from_pretrained(tmp_path / "dense", modality_projections=names)
    parted = MacForConditionalGeneration.from_pretrained(tmp_path / "dense", config=config).eval()
    own = {name.split(".")[-2] for name, _ in parted.named_parameters() if "_audio." in name}
    assert own == {f"{name}_audio" for name in names}
    inputs = make_inputs(1, 3, 2)
    assert (parted(**inputs).logits - dense(**inputs).logits).abs().max() == 0.0


def test_towers_come_with_copies(eat_folder, mamba2_folder):
    model = MacForConditionalGeneration.from_towers(eat_folder, mamba2_folder, modality_projections=BOTH)
    for layer in model.model.language_model.layers:
        for name in BOTH:
            dense, audio = getattr(layer.mixer, name).weight, getattr(layer.mixer, f"{name}_audio").weight
            assert torch.equal(dense, audio) and dense.data_ptr() != audio.data_ptr()


@torch.no_grad()
def test_saving_keeps_them(parted, make_inputs, tmp_path):
    parted.save_pretrained(tmp_path / "parted")
    again = MacForConditionalGeneration.from_pretrained(tmp_path / "parted").eval()
    inputs = make_inputs(2)
    assert torch.equal(again(**inputs).logits, parted(**inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_padding_beams_and_the_cache_change_no_caption(beams, parted, make_inputs):
    batch = parted.generate(**make_inputs(1, 3, 2), num_beams=beams)[:, -8:]
    for row, windows in enumerate([1, 3, 2]):
        alone = make_inputs(1, 3, 2)
        kept = alone["attention_mask"][row].bool()
        first = [0, 1, 4][row]
        alone = {
            "input_ids": alone["input_ids"][row][kept][None],
            "attention_mask": torch.ones(1, int(kept.sum()), dtype=torch.long),
            "input_features": alone["input_features"][first : first + windows],
            "audio_num_windows": torch.tensor([windows]),
        }
        for use_cache in (True, False):
            found = parted.generate(**alone, num_beams=beams, use_cache=use_cache)[0, -8:]
            assert torch.equal(found, batch[row])


@torch.no_grad()
def test_pieces_and_packing_take_the_mask_with_them(parted, make_inputs, monkeypatch):
    inputs = make_inputs(3)
    whole = parted(**inputs, use_cache=False).logits
    monkeypatch.setattr("modeling_mac.modeling_mamba2_mac.PIECE", 7)
    torch.testing.assert_close(parted(**inputs, use_cache=True).logits, whole, rtol=0, atol=1e-3)
    ids = inputs["input_ids"]
    packed = parted(
        input_ids=torch.cat([ids, ids], dim=1),
        input_features=inputs["input_features"].repeat(2, 1, 1),
        seq_idx=torch.arange(2, dtype=torch.int32).repeat_interleave(ids.shape[1])[None],
        use_cache=False,
    )
    torch.testing.assert_close(packed.logits[:, ids.shape[1] :], whole, rtol=0, atol=1e-3)


def test_both_sets_learn(parted, make_inputs):
    inputs = make_inputs(1, 2)
    parted.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
    for layer in parted.model.language_model.layers:
        for name in ("in_proj", "in_proj_audio", "out_proj"):
            assert getattr(layer.mixer, name).weight.grad.abs().max() > 0, name


def test_what_has_no_such_projections_is_refused(make_mac):
    with pytest.raises(StrictDataclassError, match="x_proj"):
        make_mac(modality_projections=["x_proj"])
    with pytest.raises(StrictDataclassError, match="llama"):
        make_mac("llama", modality_projections=BOTH)
