"""The command `mac-serve`: starting, stopping, and what it refuses."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch
from openai import OpenAI

from processing_mac import DEFAULT_MODEL, AudioCaptioningPipeline, load_captioner
from processing_mac.free_cores_mac import FreeCores
from serving_mac.server_app import CaptionService
from serving_mac.server_cli import build_parser, listen, loading_options, main
from serving_mac.server_loading import load_for_service, loading_beside_workers
from serving_mac.server_options import ServerOptions


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--token-file", "missing"], "--token-file missing: cannot be read"),
        (["--token-file", "empty"], "--token-file empty: is empty"),
        (["--model", "nowhere"], "nowhere is no folder"),
        (["--model", "nowhere", "--ray", "--port", "0"], "nowhere is no folder"),
        (["--device", "foo"], "error: --device foo: cannot compute here"),
        (["--device", "foo", "--ray"], "error: --device foo: cannot compute here"),
        (["--port", "99999"], "cannot listen at 127.0.0.1:99999"),
        (["--max-seconds", "nan"], "--max-seconds: expected a number above 0, not 'nan'"),
        (["--batch-wait", "x"], "--batch-wait: expected a number of at least 0, not 'x'"),
        (["--max-batch", "0"], "--max-batch"),
        (["--replicas", "2"], "--replicas: not read, since only --ray has replicas"),
        (["--model", ".", "--revision", "main"], "--revision: not read, since --model is the folder ."),
    ],
)
def test_refuses(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert told in capsys.readouterr().err


def test_a_taken_port(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit, match="2"):
        main(["--port", str(taken.getsockname()[1])])
    assert "cannot listen" in capsys.readouterr().err


def test_an_address_of_ipv6_is_listened_at():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listen("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"


def test_a_signal_ends_it_after_what_was_begun(sounds):
    """Eight requests are inside when the signal comes; all are answered, and the program ends with 0."""
    limits = ["--port", "0", "--batch-wait", "1500", "--max-batch", "9"]
    command = [sys.executable, "-m", "serving_mac.server_cli", *limits]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "MAC_SERVE_TOKEN": "secret"}
    with subprocess.Popen(command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        [address] = re.findall(r"http://\S+", server.stdout.readline())
        client = OpenAI(api_key="secret", base_url=f"{address}/v1", max_retries=0)
        [model] = client.models.list()
        assert DEFAULT_MODEL.endswith(model.id)
        answers = []

        def ask() -> None:
            answers.append(client.audio.transcriptions.create(model=model.id, file=sounds[0]).text)

        asking = [threading.Thread(target=ask) for _ in range(8)]
        for thread in asking:
            thread.start()
        health = client.with_options(base_url=address)
        while health.get("/health", cast_to=dict)["requests_inside"] < 8:
            pass
        server.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join(20)
        assert server.wait(20) == 0 and len(answers) == 8 and all(answers)
        assert "Traceback" not in server.stderr.read()


def test_int8_and_dtype_reach_every_way_to_load():
    """Of one process and of replicas, which load by the same options."""
    options = build_parser().parse_args(["--int8", "--dtype", "bfloat16"])
    captioner = load_captioner(DEFAULT_MODEL, **loading_options(options) | {"device": "cpu"})
    assert captioner.model.lm_head.weight.dtype == torch.int8 and captioner.model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("words", "compiled"),
    [
        ([], False),
        (["--compile"], False),
        (["--device", "cuda:1", "--compile"], False),
        (["--device", "cuda:1", "--compile", "--int8"], False),
        (["--device", "cpu", "--compile"], True),
        (["--compile", "--int8"], True),
        (["--int8"], False),
    ],
)
def test_a_machine_beside_the_workers_needs_no_gpu(words, compiled):
    """But what they compile on a CPU is compiled here, too, so that it is told what cannot be."""
    options = build_parser().parse_args(words)
    here = loading_beside_workers(options.device, options.int8, options.compile)
    assert here == {"device": "cpu", "compile": compiled}


def test_what_is_compiled_is_compiled_before_anyone_asks(monkeypatch):
    """A step of one row, of several, and of so many that they are split; without `--compile` nothing is heard."""
    heard = []
    monkeypatch.setattr(
        AudioCaptioningPipeline,
        "generate",
        lambda self, windows, counts, *rest: heard.append(counts) or [""] * len(counts),
    )

    def compile_decoding(model):
        model.model.language_model.decodes_compiled = True

    monkeypatch.setattr("modeling_mac.compile_decoding", compile_decoding)
    loading = loading_options(build_parser().parse_args(["--int8"]))
    load_for_service(DEFAULT_MODEL, loading | {"device": "cpu"})
    assert heard == []
    captioner = load_for_service(DEFAULT_MODEL, loading | {"compile": True})
    assert captioner.device.type == "cpu" and [len(counts) for counts in heard] == [1, 2, 8]
    taken = []
    monkeypatch.setattr(FreeCores, "take", lambda self: taken.append(1))
    monkeypatch.setattr("serving_mac.server_app.caption_jobs", lambda *arguments: [])
    CaptionService(captioner, ServerOptions(name="mac")).caption_batch([])
    assert taken == [], "another number of threads would compile anew"
