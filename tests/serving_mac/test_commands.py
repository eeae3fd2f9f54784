"""Where the commands begin: what they call, Ctrl-C before there is anything to keep, and the garbage collector."""

import gc
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from processing_mac import cli_mac
from serving_mac import commands


ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """Give the tests that follow back to the collector."""
    yield
    gc.unfreeze()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class InterruptedImport:
    """A finder of modules during whose search Ctrl-C is pressed."""

    find_spec = staticmethod(interrupt)


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_command_begins_here_and_has_a_main(command: str) -> None:
    module, function = SCRIPTS[command].split(":")
    begin = getattr(import_module(module), function)
    assert module == "serving_mac.commands" and begin.args[0] == command
    assert callable(import_module(begin.args[1]).main)


def test_control_c_while_it_imports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delitem(sys.modules, "processing_mac.cli_mac")
    monkeypatch.setattr(sys, "meta_path", [InterruptedImport])
    assert commands.caption() == 130 and capsys.readouterr().err == "mac-caption: stopped.\n"
    assert gc.isenabled()


def test_control_c_while_it_looks_for_recordings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["mac-caption", "recordings"])
    monkeypatch.setattr(cli_mac, "find_audio", interrupt)
    assert commands.caption() == 130 and capsys.readouterr().err == "mac-caption: stopped.\n"


def test_the_collector_rests_while_it_imports_and_only_then(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was made on import is out of the collector's sight; what the command makes is in it."""
    (tmp_path / "slow_to_import.py").write_text(
        "import gc\nkept = [[] for _ in range(1000)]\nresting = not gc.isenabled()\n"
        "def main():\n    return resting and gc.isenabled() and gc.get_freeze_count() > 1000\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert gc.get_freeze_count() == 0
    assert commands.run("mac-slow", "slow_to_import") is True


def test_nothing_that_takes_long_is_imported_before_control_c_is_caught() -> None:
    code = "import sys, serving_mac.commands; print({'torch', 'transformers'}.intersection(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ended.stdout == "set()\n"
