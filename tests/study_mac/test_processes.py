"""Commands in processes of their own: what a launcher has started ends with the one that asked for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from filelock import FileLock, Timeout

from study_mac.processes import SIGNALS, WATCHED, run_words


ROOT = Path(__file__).parents[2]
PATIENCE = 30  # seconds, on a busy machine
# As torchrun does, it starts its worker in a session of its own.
LAUNCHER = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN) if "stubborn" in sys.argv[1] else None
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
print("launched", flush=True)
child.wait()
"""
ASKS = """
from pathlib import Path
from study_mac import processes
processes.ENDING = {ending}
try:
    processes.run_words(["nothing"], Path("log.txt"), "{python} launcher.py {kind}")
except KeyboardInterrupt:
    print("stopped")
"""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path, monkeypatch) -> Iterator[Callable[..., tuple[subprocess.Popen, list[psutil.Process]]]]:
    """Starts a process that asks for a launcher; gives it and all that it has started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("launcher.py").write_text(LAUNCHER)
    everything: list[psutil.Process] = []

    def start(
        kind: str = "polite", ending: float = 40.0, ignored: Sequence[int] = ()
    ) -> tuple[subprocess.Popen, list[psutil.Process]]:
        def set_signals() -> None:  # whatever these tests were started by may ignore some
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

        code = ASKS.format(python=sys.executable, kind=kind, ending=ending)
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=set_signals)  # fmt: skip
        log = Path("log.txt")
        wait_for(lambda: process.poll() is not None or (log.is_file() and "launched\n" in log.read_text()))
        time.sleep(2 * WATCHED)  # who watches has seen the worker by then
        started = psutil.Process(process.pid).children(recursive=True)
        everything.extend([psutil.Process(process.pid), *started])
        assert sum("time.sleep" in " ".join(one.cmdline()) for one in started) == 1
        return process, started

    yield start
    for one in everything:
        if one.is_running():
            one.kill()


@pytest.mark.parametrize(
    ("number", "everyone"),
    [
        (signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGINT, False),
        (signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGHUP, True),
    ],
)  # fmt: skip
def test_what_a_launcher_has_started_ends_with_who_asked_for_it(start, number, everyone) -> None:
    process, started = start()
    os.killpg(process.pid, number) if everyone else process.send_signal(number)
    _, alive = psutil.wait_procs(started, timeout=PATIENCE)
    assert not alive  # else two would train in one folder
    printed, errors = process.communicate()
    assert printed == ("stopped\n" if number == signal.SIGINT else "") and "run_launched" not in errors


def test_what_nohup_protects_goes_on(start) -> None:
    process, started = start(ignored=[signal.SIGHUP])
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(4 * WATCHED)
    assert process.poll() is None and all(one.is_running() for one in started)


def test_the_stubborn_are_killed_however_often_one_is_interrupted(start) -> None:
    process, started = start("stubborn", ending=3.0)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C; it tells the launcher, too, whose worker is in another session
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, alive = psutil.wait_procs(started, timeout=PATIENCE)
    assert not alive


def test_the_next_one_waits_until_all_has_ended(start) -> None:
    process, started = start("stubborn", ending=3.0)
    trained = [one for one in started if {"launcher.py", "import time; time.sleep(1000)"} & set(one.cmdline())]
    assert len(trained) == 2
    process.kill()
    process.wait()
    with pytest.raises(Timeout):
        FileLock("launched.lock").acquire(timeout=1)
    with FileLock("launched.lock").acquire(timeout=PATIENCE):
        assert not [one for one in trained if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("launch", "code"), [("true", 0), ("false", 1), ("sh -c 'exit 3'", 3), ("sh -c 'kill -9 $$'", 137)]
)
def test_the_exit_code_is_the_launchers(tmp_path, launch, code) -> None:
    assert run_words(["nothing"], tmp_path / "log.txt", launch) == code
    assert (tmp_path / "log.txt").read_text().startswith("$ ")


@pytest.mark.parametrize("launch", ["", f"{sys.executable} launcher.py"])
def test_a_command_has_the_environment_of_who_asks_for_it(tmp_path, monkeypatch, launch) -> None:
    """Not that of the first one, in which what forks them was started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    told = "import os\ndef main(arguments=None): print(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    Path("tells.py").write_text(told)
    Path("launcher.py").write_text(f"{told}main()\n")
    for devices in ("0", "1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
        assert run_words(["tells"], Path("log.txt"), launch) == 0
    assert Path("log.txt").read_text().splitlines()[1::2] == ["0", "1"]


def test_a_launcher_that_is_not_there_is_named(tmp_path) -> None:
    assert run_words(["nothing"], tmp_path / "log.txt", "nosuch launch") == 1
    assert "No such file or directory: 'nosuch'" in (tmp_path / "log.txt").read_text()
