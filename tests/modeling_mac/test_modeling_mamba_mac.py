"""Mamba-1 on our scan: upstream's golden outputs, the stock model where that is right, and what that gets wrong."""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from text_configs import text_config
from transformers import FalconMambaModel, MambaForCausalLM, MambaModel
from transformers.configuration_utils import PreTrainedConfig

from modeling_mac import MacForConditionalGeneration, modeling_mamba_mac
from modeling_mac.conversion_text_mac import first_free_row, language_model_config, state_spaces_config
from modeling_mac.cuda_kernels_mac import CudaKernels
from modeling_mac.modeling_mamba_mac import FalconMambaMacModel, MambaMacModel
from modeling_mac.selective_scan_mac import selective_scan, selective_step


FIXTURE = Path(__file__).parents[1] / "fixtures" / "mamba1_lm_tiny.safetensors"
RELEASED_130M = {
    "d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": True, "residual_in_fp32": True,
    "fused_add_norm": True, "pad_vocab_size_multiple": 8,
}  # fmt: skip
both = pytest.mark.parametrize(
    ("stock_class", "our_class"),
    [(MambaModel, MambaMacModel), (FalconMambaModel, FalconMambaMacModel)],
    ids=["mamba", "falcon_mamba"],
)


@pytest.fixture(scope="module")
def golden_lm() -> dict[str, torch.Tensor]:
    """Weights, inputs and outputs of a small Mamba-1, made by running upstream's own code."""
    return load_file(FIXTURE)


@pytest.fixture
def released(golden_lm, tmp_path) -> Path:
    """The golden model as state-spaces releases one."""
    folder = tmp_path / "mamba"
    folder.mkdir()
    with safe_open(FIXTURE, "pt") as file:
        (folder / "config.json").write_text(file.metadata()["config.json"])
    weights = {name.removeprefix("sd."): tensor for name, tensor in golden_lm.items() if name.startswith("sd.")}
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def mac(released, eat_folder) -> MacForConditionalGeneration:
    return MacForConditionalGeneration.from_towers(eat_folder, released)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, atol: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@torch.no_grad()
def test_golden_outputs(mac, golden_lm):
    assert type(mac.model.language_model) is MambaMacModel
    outputs = mac(golden_lm["in.input_ids"], output_hidden_states=True)
    assert_close(outputs.logits, golden_lm["out.logits"], 5e-5)
    assert_close(outputs.hidden_states[-1], golden_lm["out.last_hidden_state"], 1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pieces", [[12, 12], [12] + [1] * 12, [5, 7, 2, 10]], ids=str)
@torch.no_grad()
def test_golden_outputs_in_pieces(mac, golden_lm, pieces, masked):
    """Stock transformers is off by 7.8 where several tokens follow a cache."""
    logits, cache, end = [], None, 0
    for ids in golden_lm["in.input_ids"].split(pieces, dim=1):
        end += ids.shape[1]
        mask = torch.ones(2, end, dtype=torch.long) if masked else None
        outputs = mac(ids, cache=cache, attention_mask=mask, use_cache=True)
        logits.append(outputs.logits)
        cache = outputs.cache
        if end == 12:
            for index, layer in enumerate(cache.layers):
                name = f"out.state12.layer{index}"
                assert_close(layer.conv_states[0], golden_lm[f"{name}.conv"], 1e-5)
                assert_close(layer.recurrent_states[0], golden_lm[f"{name}.ssm"], 1e-5)
    assert_close(torch.cat(logits, dim=1), golden_lm["out.logits"], 5e-5)


def test_both_released_forms_and_their_free_row(released, mac, eat_folder, tmp_path):
    """`-hf` folders keep keys of the original form, and may hold the embedding under its original name."""
    config, num_tokens = language_model_config(released)
    assert first_free_row(config, num_tokens) == mac.config.audio_token_id == 93
    folder = tmp_path / "hf"
    own = MambaForCausalLM(config)
    weights = torch.load(released / "pytorch_model.bin")
    own.load_state_dict({name.replace("embedding.", "embeddings."): weight for name, weight in weights.items()})
    own.save_pretrained(folder)
    file = folder / "config.json"
    left_over = {"ssm_cfg": {}, "d_model": 40, "n_layer": 3}
    file.write_text(json.dumps(json.loads(file.read_text()) | left_over))
    again = MacForConditionalGeneration.from_towers(eat_folder, folder, audio_token_id=93)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    original_names = MacForConditionalGeneration.from_towers(eat_folder, folder, audio_token_id=93)
    for name, weight in mac.state_dict().items():
        if "connector" not in name:
            assert torch.equal(again.state_dict()[name], weight), name
            assert torch.equal(original_names.state_dict()[name], weight), name


def test_released_config():
    config = state_spaces_config(RELEASED_130M)
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("mamba", 768, 24)
    assert (config.state_size, config.conv_kernel, config.expand, config.time_step_rank) == (16, 4, 2, 48)
    assert config.vocab_size == 50280 and config.tie_word_embeddings and config.layer_norm_epsilon == 1e-5
    assert config.use_conv_bias and not config.use_bias
    with torch.device("meta"):
        model = MambaMacModel(config)
    assert sum(weight.numel() for weight in model.parameters()) == 129_135_360


def test_the_largest_released_model():
    fields = {"d_model": 2560, "n_layer": 64, "ssm_cfg": {"dt_rank": "auto", "use_fast_path": True}}
    with torch.device("meta"):
        model = MambaMacModel(state_spaces_config(RELEASED_130M | fields))
    assert sum(weight.numel() for weight in model.parameters()) == 2_768_345_600


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rms_norm": False}, "rms_norm = false"),
        ({"attn_layer_idx": [9]}, "attn_layer_idx"),
        ({"ssm_cfg": {"headdim": 64}}, "headdim: not a plain Mamba1"),
        ({"ssm_cfg": {"layer": "S4"}}, "S4; expected Mamba1 or Mamba2"),
    ],
)
def test_what_is_no_plain_mamba1_is_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        state_spaces_config(RELEASED_130M | fields)


def config_of(model_class: type) -> PreTrainedConfig:
    return text_config(model_class.config_class.model_type, hidden_act="silu")


def make_pair(stock_class, our_class):
    torch.manual_seed(0)
    stock = stock_class(config_of(stock_class)).eval()
    ours = our_class(stock.config).eval()
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def gradients(model, ids) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(ids).last_hidden_state.pow(3).mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(1, 60, (3, 37), generator=torch.Generator().manual_seed(2))


@both
def test_equals_the_stock_model(stock_class, our_class, ids):
    stock, ours = make_pair(stock_class, our_class)
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    with torch.no_grad():
        expected, actual = (model(ids, attention_mask=mask, output_hidden_states=True) for model in (stock, ours))
    for layer, expected_layer in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert_close(layer, expected_layer, 1e-5)
    expected_gradients = gradients(stock.train(), ids)
    for checkpointing in (False, True):
        if checkpointing:
            ours.gradient_checkpointing_enable()
        for name, gradient in gradients(ours.train(), ids).items():
            scale = expected_gradients[name].abs().max().item()
            assert_close(gradient, expected_gradients[name], 1e-7 + 1e-5 * scale)


@both
def test_packed_sequences_are_read_apart(stock_class, our_class, ids):
    _, ours = make_pair(stock_class, our_class)
    lengths = [11, 1, 2, 23]
    seq_idx = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths)).expand(3, -1).int()
    packed = ours(ids, seq_idx=seq_idx).last_hidden_state
    alone = [ours(part).last_hidden_state for part in ids.split(lengths, dim=1)]
    assert_close(packed, torch.cat(alone, dim=1), 1e-5)


@both
@torch.no_grad()
def test_long_inputs_go_through_in_pieces(stock_class, our_class, ids, monkeypatch):
    _, ours = make_pair(stock_class, our_class)
    expected = ours(ids, use_cache=False).last_hidden_state
    monkeypatch.setattr("modeling_mac.modeling_mamba2_mac.PIECE", 10)
    assert_close(ours(ids, use_cache=True).last_hidden_state, expected, 1e-5)


def test_step_sizes_and_decay_stay_in_float32(mac, released, eat_folder, golden_lm):
    half = MacForConditionalGeneration.from_towers(eat_folder, released, dtype=torch.bfloat16)
    kept = {name for name, weight in half.named_parameters() if weight.dtype == torch.float32}
    assert {name.split("mixer.")[-1] for name in kept} == {"A_log", "dt_proj.weight", "dt_proj.bias"}
    with torch.no_grad():
        actual = half(golden_lm["in.input_ids"]).logits.float()
    expected = golden_lm["out.logits"]
    assert (actual - expected).abs().max() < 0.1 * expected.abs().max()


@both
def test_lora_on_every_projection_learns_and_acts(stock_class, our_class, ids):
    """Stock reads the weight of `dt_proj`, and in its fused kernel all but that of `in_proj`, past the adapter."""
    _, ours = make_pair(stock_class, our_class)
    lora = peft.LoraConfig(r=2, target_modules=["in_proj", "x_proj", "dt_proj", "out_proj"], init_lora_weights=False)
    before = ours(ids).last_hidden_state
    peft.inject_adapter_in_model(lora, torch.nn.ModuleDict({"language_model": ours}))
    assert not torch.allclose(ours(ids).last_hidden_state, before)
    ours.train()(ids).last_hidden_state.pow(3).mean().backward()
    for layer in ours.layers:
        for projection in ("in_proj", "x_proj", "dt_proj", "out_proj"):
            assert getattr(layer.mixer, projection).lora_B["default"].weight.grad.any(), projection


@pytest.fixture
def emulated_kernels(monkeypatch) -> list[str]:
    """The kernels' path, with functions of ours that read the kernels' arguments as those do; what was called."""
    calls = []

    def scan(u, delta, A, B, C, D, delta_bias, delta_softplus, return_last_state):
        assert u.shape == delta.shape and B.shape == C.shape and delta_softplus and return_last_state
        calls.append("scan")
        y, state = selective_scan(u.mT, delta.mT, A, B.mT, C.mT, D=D, dt_bias=delta_bias)
        return y.mT, state

    def update(state, u, dt, A, B, C, D, dt_bias, dt_softplus):
        assert state.shape == (*u.shape, A.shape[1]) and dt_softplus and not dt_bias.any()
        calls.append("update")
        return selective_step(state, u, dt, A, B, C, D=D)

    kernels = CudaKernels(chunk_scan=None, state_update=update, conv=None, conv_update=None, selective_scan=scan)
    monkeypatch.setattr(modeling_mamba_mac, "kernels_for", lambda tensor: kernels)
    return calls


@both
@torch.no_grad()
def test_kernels_path_is_equal(stock_class, our_class, ids, emulated_kernels):
    stock, ours = make_pair(stock_class, our_class)
    expected = stock(ids).last_hidden_state
    first = ours(ids[:, :20], use_cache=True)
    second = ours(ids[:, 20:36], cache=first.cache, use_cache=True)  # a state: ours
    third = ours(ids[:, 36:], cache=second.cache, use_cache=True)
    actual = torch.cat([step.last_hidden_state for step in (first, second, third)], dim=1)
    assert_close(actual, expected, 1e-5)
    assert emulated_kernels == ["scan"] * 2 + ["update"] * 2
