"""Where `mac-caption` begins: Ctrl-C before there is anything to keep."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from processing_mac import cli_mac
from serving_mac.caption_cli import main


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class InterruptedImport:
    """A finder of modules during whose search Ctrl-C is pressed."""

    find_spec = staticmethod(interrupt)


def test_control_c_while_it_imports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delitem(sys.modules, "processing_mac.cli_mac")
    monkeypatch.setattr(sys, "meta_path", [InterruptedImport])
    assert main() == 130 and capsys.readouterr().err == "mac-caption: stopped.\n"


def test_control_c_while_it_looks_for_recordings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["mac-caption", "recordings"])
    monkeypatch.setattr(cli_mac, "find_audio", interrupt)
    assert main() == 130 and capsys.readouterr().err == "mac-caption: stopped.\n"


def test_nothing_that_takes_long_is_imported_before_control_c_is_caught() -> None:
    code = "import sys, serving_mac.caption_cli; print({'torch', 'transformers'}.intersection(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ended.stdout == "set()\n"
