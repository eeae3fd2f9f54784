"""The speed table on a toy model: every column runs, and the numbers in the files are those that were measured."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor_config


FOLDER = Path(__file__).parents[2] / "benchmarks"
EAGER = ["ours", "stock", "gpt_neox", "floor"]


@pytest.fixture
def speed(monkeypatch):
    """`benchmarks/speed.py` as it is when run from the shell."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(FOLDER))
    with inductor_config.patch(freezing=False):  # which the compiled variant sets, and other tests must not meet
        yield importlib.import_module("speed")


def run(speed, folder: Path, *arguments: str) -> dict:
    speed.main(["--sizes", "toy", "--repeats", "1", "--threads", "1", "--results", str(folder), *arguments])
    return json.loads((folder / "speed-cpu-float32.json").read_text())["toy"]


def test_every_variant_runs(speed, tmp_path, capsys):
    columns = ["extraction", "eat", "prefill 64", "decode", "greedy x 8", "4 beams", "captions x 1", "training LoRA 8"]
    results = run(speed, tmp_path, "--columns", *columns, "--variants", *EAGER)
    assert list(results) == columns
    assert set(results["prefill 64"]["seconds"]) == set(EAGER)
    assert set(results["captions x 1"]["seconds"]) == {"ours", "stock", "gpt_neox"}
    assert all(second > 0 for record in results.values() for second in record["seconds"].values())
    assert results["training LoRA 8"]["peak_bytes"]["stock"] > results["training LoRA 8"]["peak_bytes"]["ours"] > 0
    for record in results.values():
        assert record["machine"] and record["threads"] == 1 and record["versions"]["torch"] and "commit" in record
    assert (tmp_path / "speed-cpu-float32.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert f"{1000 * results['decode']['seconds']['ours']:.1f}" in shown
    assert sys.modules["speed"].table({"toy": results}) in shown


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_the_compiled_variant_runs_where_it_is_meant_to(speed, tmp_path):
    columns = ["decode", "training LoRA 8", "first token after 3776"]
    results = run(speed, tmp_path, "--columns", *columns, "--variants", "ours", "compiled")
    measured = {column: set(record["seconds"]) for column, record in results.items()}
    assert measured == {columns[0]: {"ours", "compiled"}, columns[1]: {"ours"}, columns[2]: {"ours"}}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_a_graph_decodes_where_cuda_is(speed, tmp_path, monkeypatch, capsys):
    """On a CPU the variant is refused, and a stand-in shows where it is measured."""
    with pytest.raises(SystemExit, match="2"):
        run(speed, tmp_path, "--variants", "graph")
    assert "--variants graph needs --device cuda" in capsys.readouterr().err
    captured = []
    monkeypatch.setattr(sys.modules["speed_models"], "compile_decoding", captured.append)
    model = sys.modules["speed"].build("toy", "graph", "cpu", torch.float32)
    assert captured == [model]
    columns = sys.modules["speed_columns"].COLUMNS
    with torch.no_grad():
        models = {"ours": model, "graph": model}
        measured = {name: set(columns[name](models)) for name in ("decode", "4 beams", "training")}
    assert measured == {
        "decode": {"ours", "graph", "floor", "bytes"}, "4 beams": {"ours", "graph"}, "training": {"ours"},
    }  # fmt: skip


def test_a_second_run_keeps_the_other_columns(speed, tmp_path):
    first = run(speed, tmp_path, "--columns", "decode", "prefill 64", "--variants", "ours", "floor")
    second = run(speed, tmp_path, "--columns", "decode", "first token after 3776", "--variants", "ours", "gpt_neox")
    assert list(second) == ["prefill 64", "decode", "first token after 3776"]
    assert second["prefill 64"] == first["prefill 64"]
    assert set(second["decode"]["seconds"]) == {"ours", "gpt_neox"}
    caches = second["first token after 3776"]["cache_bytes"]
    assert caches["gpt_neox"] > 3776 * 64 * 4 > caches["ours"]


def test_what_batches_beams_and_bf16_cost(speed, tmp_path, capsys):
    arguments = ["--size", "toy", "--repeats", "1", "--threads", "1", "--results", str(tmp_path)]
    importlib.import_module("ratios").main(arguments)
    seconds = json.loads((tmp_path / "ratios-cpu.json").read_text())["seconds"]
    assert list(seconds["30 tokens"]) == ["greedy", "batch of 8", "4 beams"]
    assert all(list(seconds[name]) == ["float32", "bfloat16"] for name in ("decode", "prefill 96", "eat"))
    ratio = seconds["decode"]["bfloat16"] / seconds["decode"]["float32"]
    assert f"{ratio:.2f} times" in capsys.readouterr().out


def test_the_models_have_the_sizes_they_are_named_after(speed):
    speed_models = sys.modules["speed_models"]
    from modeling_mac import MacForConditionalGeneration

    with torch.device("meta"):
        counts = {}
        for kind in ("mamba2", "gpt_neox"):
            model = MacForConditionalGeneration(speed_models.make_config("130m", kind))
            counts[kind] = sum(parameter.numel() for parameter in model.model.language_model.parameters())
    assert counts["mamba2"] == 128_989_632
    assert 0.94 < counts["gpt_neox"] / counts["mamba2"] < 0.98


def test_8_bits_in_every_column_by_the_time_of_the_processor(speed, tmp_path, capsys):
    int8 = importlib.import_module("int8")
    columns = ["decode", "eat", "captions x 1"]
    arguments = ["--size", "toy", "--repeats", "1", "--threads", "1", "--cpu-time", "--results", str(tmp_path)]
    int8.main([*arguments, "--columns", *columns])
    results = json.loads((tmp_path / "int8-cpu.json").read_text())["toy"]
    assert list(results) == columns
    assert list(results["decode"]["seconds"]) == list(int8.DEFAULT)
    assert list(results["eat"]["seconds"]) == ["ours", "int8", "bf16", "floor"]
    assert all(value > 0 for record in results.values() for value in record["seconds"].values())
    assert results["decode"]["cpu time"] is True
    assert f"gpt_neox int8: {1000 * results['decode']['seconds']['gpt_neox int8']:.1f} ms" in capsys.readouterr().out


@pytest.mark.parametrize(("gigabytes", "told"), [("100", None), ("0.01", "0.01 GB")])
def test_cost_against_length(speed, tmp_path, monkeypatch, gigabytes, told):
    """The curve of a process that wants too much memory stops, and says by what."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER), prepend=":")
    arguments = ["--size", "toy", "--threads", "1", "--variants", "ours", "--windows", "1", "3"]
    importlib.import_module("length").main([*arguments, "--gigabytes", gigabytes, "--results", str(tmp_path)])
    points = json.loads((tmp_path / "length-cpu.json").read_text())["curves"]["ours"]
    assert points[-1].get("stopped by") == told
    if told is None:
        assert [point["seconds of audio"] for point in points] == [10.24, 30.72]
        assert all(point["processor seconds"] > 0 and point["resident"] > 1e8 for point in points)
    assert (tmp_path / "length-cpu.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_grows_on_its_own_machine_only(speed, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER), prepend=":")
    main, common = importlib.import_module("length").main, ["--size", "toy", "--results", str(tmp_path), "--variants"]
    main([*common, "ours", "--threads", "1", "--windows", "3", "1"])
    with pytest.raises(SystemExit, match="another threads"):
        main([*common, "ours", "--threads", "2", "--windows", "2", "--add"])
    main([*common, "ours", "--threads", "1", "--windows", "2", "--add"])
    points = json.loads((tmp_path / "length-cpu.json").read_text())["curves"]["ours"]
    assert [point["seconds of audio"] for point in points] == [10.24, 20.48, 30.72]


def test_a_curve_ends_where_it_was_stopped(speed):
    joined = importlib.import_module("length").joined
    one, two, three = ({"seconds of audio": length, "processor seconds": length} for length in (1, 2, 3))
    stopped = {"seconds of audio": 2, "stopped by": "1 GB"}
    assert joined([one, three], [stopped]) == [one, stopped]
    assert joined([one, stopped], [two]) == [one, two]


def test_the_layers_of_8_bits_are_compared(speed, monkeypatch, tmp_path, capsys):
    """torchao's layers are played by float ones, and its compiler by none."""
    layers = importlib.import_module("int8_layers")
    monkeypatch.setattr(layers, "torchao_layers", layers.float_layers)
    monkeypatch.setattr(layers, "BLOCKS", 1)
    monkeypatch.setattr(layers.torch, "compile", lambda function: function)
    layers.main(["--repeats", "1", "--results", str(tmp_path)])
    seconds = json.loads((tmp_path / "int8-layers-cpu.json").read_text())["seconds"]
    names = ("float32", "ours", "torchao", "torchao on bf16")
    assert list(seconds) == ["1", "8"]
    assert all(list(row) == [name + end for name in names for end in ("", ", compiled")] for row in seconds.values())
    assert f"ours: {1000 * seconds['8']['ours']:.1f} ms" in capsys.readouterr().out
