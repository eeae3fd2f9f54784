"""The number type that `load_captioner` and the commands give the weights, and what is said of a slow one."""

import pytest
import torch

from modeling_mac import compiling_mac, decode_step_mac, int8_mac
from processing_mac import cli_mac, load_captioner


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bf16_is_said_to_be_slow_where_it_is(model_folder, monkeypatch, caplog, dtype, fast):
    monkeypatch.setattr(int8_mac, "FAST_BF16", fast)
    assert load_captioner(model_folder, device="cpu", dtype=dtype).model.dtype == getattr(torch, dtype)
    assert ("avx512_bf16" in caplog.text) == (dtype == "bfloat16" and not fast)


@pytest.mark.parametrize("device", ["foo", "meta", torch.device("meta"), "cuda:99"])
def test_a_device_that_cannot_compute_is_named_before_the_model_is_read(device):
    with pytest.raises(ValueError, match=f"^device {device}: cannot compute here"):
        load_captioner("nowhere/at/all", device=device)


@pytest.mark.parametrize("int8", [[], ["--int8"]])
def test_mac_caption_takes_a_dtype(model_folder, sounds, monkeypatch, capsys, int8):
    loaded = []
    monkeypatch.setattr(
        cli_mac, "load_captioner", lambda *args, **kw: loaded.append(load_captioner(*args, **kw)) or loaded[0]
    )
    file = "sounds/b.wav"
    assert cli_mac.main([file, "--model", model_folder, "--device", "cpu", "--dtype", "bfloat16", *int8]) == 0
    assert loaded[0].model.dtype == torch.bfloat16
    assert capsys.readouterr().out == f"{file}\t{loaded[0](file)[0]['caption']}\n"


def test_mac_caption_compiles_what_is_large_and_of_8_bits(model_folder, sounds, monkeypatch, capsys):
    """Compiled or not, it says the same; anything else is refused."""
    command = ["sounds/b.wav", "--model", model_folder, "--device", "cpu"]
    with pytest.raises(SystemExit, match="2"):
        cli_mac.main([*command, "--int8", "--compile"])
    assert (
        f"--model {model_folder} cannot be compiled: On a CPU only a Mamba-2 with large layers"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit, match="2"):
        cli_mac.main([*command, "--compile"])
    assert "round them by `to_int8()`, `--int8`" in capsys.readouterr().err
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    assert cli_mac.main([*command, "--int8"]) == 0
    expected, tokens = capsys.readouterr().out, []
    monkeypatch.setattr(compiling_mac, "has_compiler", lambda: True)
    monkeypatch.setattr(decode_step_mac, "compiled_step", lambda: tokens.append(1) or decode_step_mac.block_step)
    monkeypatch.setattr(cli_mac.FreeCores, "count", lambda self: pytest.fail("it asked for a number of threads"))
    assert cli_mac.main([*command, "--int8", "--compile"]) == 0
    assert tokens and capsys.readouterr().out == expected
