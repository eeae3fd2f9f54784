"""`mac-demo`: what it says when it cannot start."""

import importlib.util
import socket
from pathlib import Path

import pytest

from demo_mac import cli
from demo_mac.cli import find_examples, main


def test_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "gradio" else importlib.util.find_spec(name))
    with pytest.raises(SystemExit) as exit:
        main([])
    message = capsys.readouterr().err
    assert exit.value.code == 2 and "needs gradio: pip install 'mamba-audio-captioning[demo]'" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere/at/all"], "--model nowhere/at/all is no folder, and as a Hub id cannot be loaded"),
        (["--device", "cuda:99"], "--device cuda:99: cannot compute here"),
        (["--port", "many"], "--port"),
    ],
)
def test_wrong_use(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda name: True)
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and message in capsys.readouterr().err


def test_a_taken_port_is_named(capsys):
    pytest.importorskip("gradio")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        with pytest.raises(SystemExit) as exit:
            main(["--port", port, "--device", "cpu"])
    message = capsys.readouterr().err
    assert exit.value.code == 2 and f"cannot listen at 127.0.0.1:{port}: taken" in message
    assert "GRADIO_SERVER_PORT" not in message


def test_examples_where_there_are_some(tmp_path):
    shipped = [Path(path).name for path in find_examples(cli.DEFAULT_EXAMPLES)]
    assert "cat.flac" in shipped and "pick_examples.py" not in shipped
    assert find_examples(tmp_path / "none") == []
