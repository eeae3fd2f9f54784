import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import Mamba2ForCausalLM

from modeling_mac import EatConfig, EatModel, MacForConditionalGeneration
from modeling_mac.connector_mac import CONNECTORS
from modeling_mac.conversion_text_mac import state_spaces_config


@pytest.fixture
def model(eat_folder, mamba2_folder) -> MacForConditionalGeneration:
    torch.manual_seed(0)
    return MacForConditionalGeneration.from_towers(eat_folder, mamba2_folder, connector_type="mean_pool")


def test_towers_compute_what_they_did_alone(model, mamba2, golden):
    ids = torch.arange(40).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, mamba2(ids).logits, rtol=0, atol=1e-5)
        tokens = model.model.audio_tower(golden["in.input_1024"].squeeze(1)).last_hidden_state
    torch.testing.assert_close(tokens, golden["out.finetune.tokens_1024"], rtol=0, atol=1e-5)


def test_transformers_form_gives_the_same_model(model, mamba2, eat_folder, tmp_path):
    mamba2.save_pretrained(tmp_path / "hf")
    torch.manual_seed(0)
    again = MacForConditionalGeneration.from_towers(
        eat_folder, tmp_path / "hf", audio_token_id=50, connector_type="mean_pool"
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_config_and_generation_config(model):
    assert model.config.connector_type == "mean_pool" and model.config.audio_token_id == 50
    assert model.lm_head.weight is model.get_input_embeddings().weight
    generation = model.generation_config
    assert (generation.max_new_tokens, generation.suppress_tokens) == (64, [50])
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (0, 0, 0)
    assert not model.training


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conector_type": "concat"}, "takes no 'conector_type'; expected a field .* Did you mean 'connector_type'?"),
        ({"text_config": None}, "takes no 'text_config'"),  # the tower says it
    ],
)
def test_fields_that_nothing_would_read_are_refused(fields, message, eat_folder, mamba2_folder):
    with pytest.raises(ValueError, match=message):
        MacForConditionalGeneration.from_towers(eat_folder, mamba2_folder, **fields)


def test_only_the_connector_is_new(model):
    assert model.model.connector.linear.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scan", ["bidirectional", "cross"])
@pytest.mark.parametrize("connector_type", list(CONNECTORS))
def test_no_weight_of_a_new_connector_is_left_as_memory_had_it(
    connector_type, scan, dtype, eat_folder, mamba2_folder, tmp_path, monkeypatch
):
    """Memory that transformers takes for a missing weight is NaN here, in place of whatever it held before."""
    taken, nothing = [], torch.empty_like

    def poisoned(*args, **kwargs):
        tensor = nothing(*args, **kwargs)
        if tensor.is_floating_point() and not tensor.is_meta:
            taken.append(tensor.fill_(float("nan")))
        return tensor

    if scan == "cross" and connector_type != "scan":
        pytest.skip("one order of reading is enough for a connector that does not scan")
    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty_like", poisoned)
        model = MacForConditionalGeneration.from_towers(
            eat_folder, mamba2_folder, connector_type=connector_type, connector_scan=scan, dtype=dtype
        )
    weights = dict(model.model.connector.named_parameters())
    assert len(taken) >= len(weights)
    for name, weight in weights.items():
        assert weight.abs().max() < 10, name
        assert weight.dtype == (torch.float32 if name.endswith(("A_log", "dt_bias")) else dtype), name
    model.save_pretrained(tmp_path / "mac")
    again = MacForConditionalGeneration.from_pretrained(tmp_path / "mac").model.connector
    for name, weight in again.named_parameters():
        assert weight.dtype == weights[name].dtype and torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_exactly(eat_folder, mamba2_folder, tmp_path, dtype):
    model = MacForConditionalGeneration.from_towers(eat_folder, mamba2_folder, dtype=dtype)
    model.save_pretrained(tmp_path / "mac")
    again = MacForConditionalGeneration.from_pretrained(tmp_path / "mac")
    assert model.dtype == again.dtype == dtype
    for name, tensor in model.state_dict().items():
        kept = name.endswith(("A_log", "dt_bias"))
        assert tensor.dtype == (torch.float32 if kept else dtype), name
        assert torch.equal(again.state_dict()[name], tensor), name
    assert str(tmp_path) not in (tmp_path / "mac" / "config.json").read_text()


def test_state_dynamics_are_not_rounded(mamba2, eat_folder, mamba2_folder):
    model = MacForConditionalGeneration.from_towers(eat_folder, mamba2_folder, dtype=torch.bfloat16)
    for ours, theirs in zip(model.model.language_model.layers, mamba2.backbone.layers, strict=True):
        assert torch.equal(ours.mixer.A_log, theirs.mixer.A_log) and torch.equal(
            ours.mixer.dt_bias, theirs.mixer.dt_bias
        )


CONVERT_AND_MEASURE = """
import resource
from modeling_mac.convert_cli_mac import main
main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture
def full_size(tmp_path) -> Iterator[Path]:
    """EAT-base and Mamba-2 130m with random weights, in their original forms."""
    upstream = {"embeddings.cls_token": "modality_encoders.IMAGE.extra_tokens"}
    eat = {}
    for name, tensor in EatModel(EatConfig()).state_dict().items():
        name = upstream.get(name, name).replace("layers.", "blocks.").replace("attention.", "attn.")
        name = name.replace("embeddings.patch_embedding", "modality_encoders.IMAGE.local_encoder.proj")
        eat[name.replace("embeddings.layer_norm", "modality_encoders.IMAGE.context_encoder.norm")] = tensor
    torch.save({"model": eat, "cfg": {"model": {"depth": 12}}}, tmp_path / "EAT-base.pt")

    config = {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "pad_vocab_size_multiple": 16}
    config["ssm_cfg"] = {"layer": "Mamba2"}
    folder = tmp_path / "mamba2-130m"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    weights = Mamba2ForCausalLM(state_spaces_config(config)).state_dict()
    torch.save(
        {name.replace("embeddings", "embedding"): weights[name] for name in weights}, folder / "pytorch_model.bin"
    )
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_full_size(full_size):
    sources = ["--audio", str(full_size / "EAT-base.pt"), "--language-model", str(full_size / "mamba2-130m")]
    output = full_size / "mac-130m"
    command = [sys.executable, "-c", CONVERT_AND_MEASURE, *sources, "--output", str(output)]
    printed = subprocess.run(command, check=True, cwd=Path(__file__).parents[2], capture_output=True, text=True).stdout
    assert int(printed.split()[-1]) < 6 * 2**20  # KiB
    saved = MacForConditionalGeneration.from_pretrained(output)
    assert saved.config.audio_token_id == 50277 and saved.config.text_config.vocab_size == 50288
    assert sum(weight.numel() for weight in saved.model.audio_tower.parameters()) == 85_254_144
    assert sum(weight.numel() for weight in saved.model.language_model.parameters()) == 128_989_632
    direct = MacForConditionalGeneration.from_towers(sources[1], sources[3])
    for name, tensor in direct.state_dict().items():
        assert "connector" in name or torch.equal(saved.state_dict()[name], tensor), name
