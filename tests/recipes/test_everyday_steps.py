"""Commands one after another that can be stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

from everyday_steps import Step, Steps


RECIPES = Path(__file__).parents[2] / "recipes"


def step(name: str, line: str, makes: str | None = None) -> Step:
    return Step(name, ("-c", line), makes)


def append(word: str) -> str:
    return f"open('log', 'a').write({word!r})"


def run(groups: list[list[Step]], folder: Path) -> str:
    Steps(groups, folder, folder / "runs" / "steps.json").run()
    return (folder / "log").read_text()


def test_what_is_finished_does_not_run_again(tmp_path: Path) -> None:
    first, last = step("first", append("a")), step("last", append("d"))
    middle = [step("b", append("b")), step("c", append("c"))]
    assert sorted(run([[first], middle], tmp_path)) == ["a", "b", "c"]
    assert run([[first], middle, [last]], tmp_path)[3:] == "d"
    assert len(run([[first], middle, [last]], tmp_path)) == 4


def test_a_chain_goes_on_at_the_step_that_failed(tmp_path: Path) -> None:
    fails = step("fails", "import os, sys; sys.exit(not os.path.exists('mended'))")
    groups = [[step("first", append("a"))], [fails], [step("last", append("b"))]]
    with pytest.raises(subprocess.CalledProcessError, match="mended"):
        run(groups, tmp_path)
    assert (tmp_path / "log").read_text() == "a"
    (tmp_path / "mended").touch()
    assert run(groups, tmp_path) == "ab"


def test_a_failure_ends_what_runs_beside_it(tmp_path: Path) -> None:
    sleeps = step("sleeps", "import time; open('there', 'w'); time.sleep(60)")
    waits = "import os, time\nwhile not os.path.exists('there'): time.sleep(0.01)\nraise SystemExit(1)"
    with pytest.raises(subprocess.CalledProcessError):
        start = time.monotonic()
        run([[step("fails", waits), sleeps]], tmp_path)
    assert time.monotonic() - start < 30


def test_another_command_does_not_go_on_from_what_was_begun(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run([[step("one", "raise SystemExit(1)  # --seed 1")]], tmp_path)
    with pytest.raises(ValueError, match=r"(?s)step one was begun by another command.*--seed 1.*--seed 2"):
        run([[step("one", "raise SystemExit(1)  # --seed 2")]], tmp_path)


def test_a_mac_that_was_finished_unnoticed_is_finished(tmp_path: Path) -> None:
    """A command that makes one refuses to make it again, so a chain that was killed just then could not go on."""
    line = "import pathlib, sys; sys.exit(pathlib.Path('made/config.json').is_file())"
    groups = [[step("makes", line, makes="made")], [step("last", append("b"))]]
    steps = Steps(groups, tmp_path, tmp_path / "runs" / "steps.json")
    (tmp_path / "runs").mkdir()
    steps.note(groups[0][0], finished=False)
    (tmp_path / "made").mkdir()
    for name in ("config.json", "state.pt"):
        (tmp_path / "made" / name).touch()
    with pytest.raises(subprocess.CalledProcessError):  # it has a state to go on from
        run(groups, tmp_path)
    (tmp_path / "made" / "state.pt").unlink()
    assert run(groups, tmp_path) == "b"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_started_ends_with_it(number: int, tmp_path: Path) -> None:
    line = (
        "import sys; sys.path.insert(0, sys.argv[1]); import make_everyday as m; from everyday_steps import Step\n"
        "m.plan = lambda options: [[Step('sleeps', ('-c', 'import time; open(\"there\", \"w\"); time.sleep(60)'))]]\n"
        "m.check_inputs = lambda options: None\n"
        "m.main(['--esc50', 'a', '--everyday', 'b', '--teacher', 'c'])"
    )
    chain = subprocess.Popen(
        [sys.executable, "-c", line, str(RECIPES)], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env=os.environ | {"PYTHONPATH": str(RECIPES.parent)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "there").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(chain.pid).children()
    chain.send_signal(number)
    assert "Stopped; the same command goes on from there." in chain.communicate(timeout=30)[1]
    assert chain.returncode == 1 and children and not any(child.is_running() for child in children)
