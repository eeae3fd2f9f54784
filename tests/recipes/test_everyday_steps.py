"""Commands one after another that can be stopped."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

from everyday_steps import Step, StepFailed, Steps


ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds that a busy machine may take


def step(name: str, line: str, *words: str, makes: str = "", here: tuple[str, ...] = (), trains: bool = False) -> Step:
    """A step that runs a line of Python and, at its end, makes a file of its name."""
    return Step(name, ("-c", f"{line}\nopen({name!r}, 'w').write('made')"), words, makes or name, here, trains)


def append(word: str) -> str:
    return f"open('log', 'a').write({word!r})"


def run(groups: list[list[Step]], folder: Path) -> str:
    Steps(groups, folder).run()
    return (folder / "log").read_text()


def test_what_is_finished_does_not_run_again(tmp_path: Path) -> None:
    first, last = step("first", append("a")), step("last", append("d"))
    middle = [step("b", append("b")), step("c", append("c"))]
    assert sorted(run([[first], middle], tmp_path)) == ["a", "b", "c"]
    assert run([[first], middle, [last]], tmp_path)[3:] == "d"
    assert len(run([[first], middle, [last]], tmp_path)) == 4
    (tmp_path / "last").unlink()  # to make it anew
    assert run([[first], middle, [last]], tmp_path)[3:] == "dd"
    (tmp_path / "b").unlink()
    with pytest.raises(ValueError, match=r"b is to be made anew, and .*last was made from it: remove that, too"):
        run([[first], middle, [last]], tmp_path)
    (tmp_path / "last").unlink()
    assert run([[first], middle, [last]], tmp_path)[3:] == "ddbd"


def test_a_chain_goes_on_at_the_step_that_failed(tmp_path: Path) -> None:
    fails = step("fails", "import os, sys; print('told why'); os.path.exists('mended') or sys.exit(3)")
    groups = [[step("first", append("a"))], [fails], [step("last", append("b"))]]
    with pytest.raises(StepFailed, match=r"(?s)told why.*fails ended with 3: .*log\.txt"):
        run(groups, tmp_path)
    assert (tmp_path / "log").read_text() == "a"
    (tmp_path / "mended").touch()
    assert run(groups, tmp_path) == "ab"


def test_a_step_that_is_killed_has_failed(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="one was killed by SIGKILL"):
        run([[step("one", "import os; os.kill(os.getpid(), 9)")]], tmp_path)


def test_a_failure_ends_what_runs_beside_it_and_nothing_begins(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    sleeps = step("sleeps", f"import time; open('there', 'w'); time.sleep({10 * PATIENCE})")
    waits = f"""import os, time
for _ in range({20 * PATIENCE}):
    if os.path.exists('there'): break
    time.sleep(0.05)
raise SystemExit(1)"""
    start = time.monotonic()
    with pytest.raises(StepFailed, match="fails ended with 1"):
        run([[sleeps, step("fails", waits), step("third", append("c"))]], tmp_path)
    assert time.monotonic() - start < 2 * PATIENCE and not (tmp_path / "log").exists()


def test_one_step_a_core_runs_at_a_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    line = "import os, time; os.mkdir('alone'); time.sleep(0.3); os.rmdir('alone')"
    Steps([[step(name, line) for name in ("one", "two", "three")]], tmp_path).run()


def test_other_options_do_not_go_on_from_what_was_made(tmp_path: Path) -> None:
    one = step("one", append("a"), "--seed", "1", here=("--workers", "2"))
    assert run([[one]], tmp_path) == "a"
    elsewhere = Step(one.name, one.program, one.words, one.makes, ("--workers", "9"))
    assert run([[elsewhere]], tmp_path) == "a"  # on another machine
    other = Step(one.name, one.program, ("--seed", "2"), one.makes)
    with pytest.raises(ValueError, match=r"(?s)one was made by .*--seed 1`, not by .*--seed 2`: remove it"):
        run([[other]], tmp_path)
    (tmp_path / "one").unlink()
    assert run([[other]], tmp_path) == "aa"


def test_what_failed_before_it_made_anything_is_forgotten(tmp_path: Path) -> None:
    line = "import sys; '--wrong' in sys.argv and sys.exit(1)"
    with pytest.raises(StepFailed):
        run([[step("one", line, "--wrong")]], tmp_path)
    Steps([[step("one", line)]], tmp_path).run()


def test_what_another_command_made_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    for _ in range(2):
        with pytest.raises(ValueError, match="one is there, and was not made by this command"):
            run([[step("one", append("a"))]], tmp_path)


def test_a_training_that_was_finished_unnoticed_is_finished(tmp_path: Path) -> None:
    """It refuses to run again, so a chain that was killed just then could not go on."""
    makes = step(
        "makes",
        "import os; os.path.exists('made/state.pt') or exit(1); os.remove('made/state.pt')",
        makes="made",
        trains=True,
    )
    groups = [[makes], [step("last", append("b"))]]
    (tmp_path / "runs").mkdir()
    Steps(groups, tmp_path).note(makes, finished=False)
    (tmp_path / "made").mkdir()
    for name in ("config.json", "state.pt"):
        (tmp_path / "made" / name).touch()
    assert run(groups, tmp_path) == "b"  # it had a state to go on from
    Steps(groups, tmp_path).note(makes, finished=False)
    (tmp_path / "last").unlink()
    assert run(groups, tmp_path) == "bb"  # and now has none
    Steps(groups, tmp_path).note(makes, finished=False)
    (tmp_path / "last").unlink()
    with pytest.raises(StepFailed):  # one that has no state by which to tell runs again
        run([[dataclasses.replace(makes, is_training=False)], groups[1]], tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"one": 1}', '{"one": {"finished": true}}', '{"one": {"what": 1}}'])
def test_damaged_notes_are_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "steps.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'runs' / 'steps.json'} is damaged")):
        run([[step("one", append("a"))]], tmp_path)


def test_two_do_not_work_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with FileLock(tmp_path / "runs" / "steps.lock"), pytest.raises(ValueError, match="another call of this command"):
        run([[step("one", append("a"))]], tmp_path)


CHAIN = """
import sys
sys.path.insert(0, {recipes!r})
import make_everyday
from everyday_steps import Step
child = "import time; open('there', 'w'); time.sleep(600)"
line = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{child!r}}])"
make_everyday.Plan.groups = lambda plan: [[Step(name, ("-c", line), (), name) for name in ("one", "two")]]
make_everyday.check_inputs = lambda options: None
make_everyday.main(["--esc50", "a", "--everyday", "b", "--teacher", "c"])
"""


def is_dead(process: psutil.Process) -> bool:
    """Whether a process has ended, and waits at most for somebody to ask how."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("number", "to_all"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGKILL, False)]
)
def test_nothing_that_was_started_runs_on(number: int, to_all: bool, tmp_path: Path) -> None:
    """Neither the steps nor what they have started."""
    chain = subprocess.Popen(
        [sys.executable, "-c", CHAIN.format(recipes=str(ROOT / "recipes"))],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, process_group=0,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "there").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)  # the other one, too, and those that watch have looked
    started = psutil.Process(chain.pid).children(recursive=True)
    for _ in range(2):  # as those do who are in a hurry
        os.killpg(chain.pid, number) if to_all else chain.send_signal(number)
    told = chain.communicate(timeout=PATIENCE)[1]
    alive = psutil.wait_procs(started, timeout=PATIENCE if number == signal.SIGKILL else 1)[1]
    assert started and not [one for one in alive if not is_dead(one)]
    if number != signal.SIGKILL:
        assert "Stopped; the same command goes on from there." in told and chain.returncode == 130
        assert "Traceback" not in told
        assert not json.loads((tmp_path / "runs" / "steps.json").read_text())["one"]["finished"]
