"""Discrete Mamba-2 against upstream's golden outputs, its decoding against its reading, and its start."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PhiConfig

from modeling_mac import DiscreteMamba2Config, MacConfig
from modeling_mac.modeling_discrete_mamba2_mac import DiscreteMamba2Mixer, DiscreteMamba2Model
from modeling_mac.ssd_mac import decay_scan


FIXTURE = Path(__file__).parents[1] / "fixtures" / "phi_mamba_tiny.safetensors"
PHI = {
    "model_type": "phi", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "partial_rotary_factor": 0.5, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
SOURCES = {
    "phi": PHI,
    "gpt_neox": PHI | {"model_type": "gpt_neox"},
    "llama": {**PHI, "model_type": "llama", "num_key_value_heads": 2},
}


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE)


def config(**fields) -> DiscreteMamba2Config:
    return DiscreteMamba2Config(**{"source": PHI, "state_size": 8} | fields)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    wide = float(expected.max() - expected.min()) > 4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4 if wide else 1e-5)


def weights(golden, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


@torch.no_grad()
def test_a_block_stage_by_stage(golden) -> None:
    model = DiscreteMamba2Model(config()).eval()
    layer = model.layers[0]
    block = weights(golden, "sd.block.")
    layer.load_state_dict({name.replace("mixer.", "self_attn."): value for name, value in block.items()})
    hidden = golden["in.hidden_states"]
    close(layer(hidden), golden["out.block"])
    mixer, normed = layer.self_attn, layer.input_layernorm(hidden)
    x, B, C, _, log_decay = mixer.read(normed)
    for name, part in {"x": x, "B": B, "C": C}.items():
        close(part.flatten(2), golden[f"out.conv.{name}"])
    torch.testing.assert_close(log_decay, -torch.nn.functional.softplus(golden["out.A_log"]), rtol=1e-5, atol=1e-5)
    close(mixer(normed)[0], golden["out.mixer"])
    close(mixer.matrix(normed), golden["out.transfer_matrix"])
    close(decay_scan(x, log_decay, B, C, D=mixer.D)[0].flatten(2), golden["out.scan"])
    applied = (mixer.matrix(normed) @ x.transpose(1, 2)).transpose(1, 2)
    close(applied.flatten(2), golden["out.scan"])


@torch.no_grad()
def test_heads_that_share_B_and_C(golden) -> None:
    mixer = DiscreteMamba2Mixer(config(num_qk_heads=2), 0)
    mixer.load_state_dict(weights(golden, "sd.mixer_gqa."))
    close(mixer(golden["in.hidden_states"])[0], golden["out.mixer_gqa"])


@torch.no_grad()
def test_student_layers_of_the_teacher(golden) -> None:
    model = DiscreteMamba2Model(config(source={**PHI, "vocab_size": 40})).eval()
    for index, layer in enumerate(model.layers):
        given = weights(golden, f"sd.student.layers.{index}.")
        layer.load_state_dict({name.replace("mixer.", "self_attn."): value for name, value in given.items()})
        hidden = golden[f"out.teacher.hidden.{index}"]
        close(layer(hidden), golden[f"out.student.block.{index}"])
        normed = layer.input_layernorm(hidden)
        close(layer.self_attn(normed)[0], golden[f"out.student.mixer.{index}"])
        close(layer.self_attn.matrix(normed), golden[f"out.student.transfer_matrix.{index}"])
    teacher = weights(golden, "sd.teacher.")
    model.backbone.embed_tokens.weight.copy_(teacher["model.embed_tokens.weight"])
    model.backbone.final_layernorm.load_state_dict(weights(teacher, "model.final_layernorm."))
    hidden = model(input_ids=golden["in.input_ids"]).last_hidden_state
    logits = hidden @ teacher["lm_head.weight"].T + teacher["lm_head.bias"]
    close(logits, golden["out.student.logits"])


def test_a_head_that_forgets_at_once_has_finite_gradients() -> None:
    """Upstream divides by the step size, which is 0 here."""
    x, B, C = (torch.randn(1, 5, 1, 4) for _ in range(3))
    A_log = torch.full((1, 5, 1), -300.0, requires_grad=True)
    for one in (A_log, -A_log):
        y, _ = decay_scan(x, torch.nn.functional.logsigmoid(-one), B, C)
        assert y.isfinite().all()
        assert torch.autograd.grad(y.sum(), A_log)[0].isfinite().all()


def test_gradients_of_the_scan() -> None:
    torch.manual_seed(0)
    x, B, C = torch.randn(2, 7, 4, 3), torch.randn(2, 7, 2, 5), torch.randn(2, 7, 2, 5)
    log_decay = -torch.rand(2, 7, 4)
    tensors = [tensor.requires_grad_() for tensor in (x, log_decay, B, C)]
    found = torch.autograd.grad(decay_scan(*tensors)[0].square().sum(), tensors)
    state, outputs = torch.zeros(2, 4, 3, 5), []
    for t in range(7):
        Bt, Ct = (part[:, t].repeat_interleave(2, 1) for part in (B, C))
        state = state * log_decay[:, t].exp()[..., None, None] + x[:, t, :, :, None] * Bt[:, :, None]
        outputs.append((state * Ct[:, :, None]).sum(-1))
    expected = torch.autograd.grad(torch.stack(outputs, 1).square().sum(), tensors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_new_mixer_is_attentions_form() -> None:
    torch.manual_seed(0)
    model = DiscreteMamba2Model(config())
    mixer, hidden = model.layers[0].self_attn, torch.randn(2, 6, 32)
    x = hidden @ mixer.in_proj.weight[:32].T
    mixed = (mixer.matrix(hidden) @ x.unflatten(-1, (4, 8)).transpose(1, 2)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixer(hidden)[0], mixer.out_proj(mixed), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layers", [[], [0], [1]])
@pytest.mark.parametrize("kind", SOURCES)
def test_reads_on_generates_and_pads(make_mac, make_inputs, take_clip, monkeypatch, kind, layers, tmp_path) -> None:
    text = config(source=SOURCES[kind] | {"initializer_range": 0.3}, attention_layers=layers)
    monkeypatch.setitem(make_mac.__globals__, "text_config", lambda _: text)
    model = make_mac("mac_discrete_mamba2")
    inputs = make_inputs(1, 3, 2)
    whole = model(**inputs).logits
    batch, beams = model.generate(**inputs), model.generate(**inputs, num_beams=3)
    for clip in range(3):
        alone = take_clip(inputs, clip)
        length = alone["input_ids"].shape[1]
        torch.testing.assert_close(model(**alone).logits[0], whole[clip, -length:], rtol=1e-4, atol=1e-4)
        assert torch.equal(model.generate(**alone)[0, -8:], batch[clip, -8:])
        assert torch.equal(model.generate(**alone, num_beams=3)[0, -8:], beams[clip, -8:])
    uncached = model.generate(**inputs, use_cache=False)
    assert torch.equal(uncached, batch)
    first = take_clip(inputs, 0)
    cache = model(**first, use_cache=True).cache
    more = torch.tensor([[3, 4, 5]])
    both = {**first, "input_ids": torch.cat([first["input_ids"], more], 1)}
    del both["attention_mask"]
    torch.testing.assert_close(
        model(input_ids=more, cache=cache).logits, model(**both).logits[:, -3:], rtol=1e-4, atol=1e-4
    )
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again(**inputs).logits, whole)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_v_heads": 3}, "`num_v_heads` is 3"),
        ({"num_qk_heads": 3}, "`num_qk_heads` is 3"),
        ({"attention_layers": [2]}, r"names \[2\]; expected 0 to 1"),
        ({"source": {"model_type": "mamba2"}}, "expected a transformer of gpt_neox, llama, phi"),
    ],
)
def test_what_cannot_be_is_refused(fields, message) -> None:
    with pytest.raises(Exception, match=message):
        config(**fields)


def test_the_configuration_survives_saving(tmp_path) -> None:
    before = MacConfig(text_config=config(attention_layers=[1]), audio_token_id=63)
    before.save_pretrained(tmp_path)
    after = MacConfig.from_pretrained(tmp_path).text_config
    assert isinstance(after, DiscreteMamba2Config) and after.attention_layers == [1]
    assert (
        after.source_config().to_dict() == PhiConfig(**{k: v for k, v in PHI.items() if k != "model_type"}).to_dict()
    )
