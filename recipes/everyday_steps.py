"""
Commands one after another, of which a folder keeps what is finished, so that a long chain of them can be stopped.

`make_everyday.py` uses it.
"""

import json
import os
import shlex
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from filelock import FileLock, Timeout

from processing_mac.whole_files_mac import write_text_whole
from study_mac.processes import SIGNALS, WATCHED, start_launched, wait_for_end


SAID = 12  # last lines of what a command printed that are shown if it fails


class StepFailed(Exception):
    """A step ended with an error; the text says which, and what it printed last."""


class Stopped(Exception):
    """A signal ended the steps."""


@dataclass(frozen=True)
class Step:
    """
    One command, which when it is given again goes on where it was stopped.

    Args:
        name: Name of the step.
        program: Words behind `python` that name the program.
        words: Its options. Other ones would give another result.
        makes: File or folder that is there when something was made.
        here: Options that fit the machine, and leave the result what it is.
        is_training: Whether it makes a MAC beside a `state.pt` that it removes last, and then refuses to run again.
    """

    name: str
    program: tuple[str, ...]
    words: tuple[str, ...]
    makes: str
    here: tuple[str, ...] = ()
    is_training: bool = False

    @property
    def command(self) -> str:
        """The command as one types it."""
        return shlex.join(["python", *self.program, *self.words, *self.here])

    @property
    def what(self) -> list[str]:
        """The program, wherever it lies, and the options that make the result."""
        return [Path(self.program[-1]).name, *self.words]


class Steps:
    """
    Runs steps, and notes which are finished.

    Args:
        groups: Steps in groups: those of a group may run side by side, and each group needs what is before it.
        folder: Folder in which the commands run; `runs/` in it keeps what they print, and what is finished.
    """

    def __init__(self, groups: Sequence[Sequence[Step]], folder: Path):
        self.groups, self.folder, self.runs = groups, folder, folder / "runs"
        self.names = [step.name for group in groups for step in group]
        self.notes = self.runs / "steps.json"
        self.known: dict[str, dict] = {}
        self.is_stopped = False

    def run(self) -> None:
        """
        Run all steps that are not finished.

        Raises:
            ValueError: What is in the folder was made by other commands, or another call is at work there.
            StepFailed: A step failed.
            Stopped: SIGINT, SIGTERM or SIGHUP came; all that was started has ended.
        """
        self.runs.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.runs / "steps.lock", timeout=0), self.stopped_by_signals():
                self.known = read_notes(self.notes)
                for group in self.groups:
                    self.check(group)
                self.check_order()
                for group in self.groups:
                    self.run_group(deque(step for step in group if not self.is_finished(step)))
        except Timeout:
            raise ValueError(f"{self.runs}: another call of this command is at work there.") from None

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Let signals stop the steps, but those that are ignored, as `nohup` has it."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self.stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self, *_: object) -> None:
        """Begin nothing more, and end what runs."""
        self.is_stopped = True

    def check(self, steps: Sequence[Step]) -> None:
        """
        Refuse to go on from what other commands have made.

        Raises:
            ValueError: Something is there that this chain did not make, or made by other options.
        """
        for step in steps:
            if not self.has_made(step):
                continue
            made = self.folder / step.makes
            if step.name not in self.known:
                raise ValueError(
                    f"{made} is there, and was not made by this command: remove it, or name another folder."
                )
            if (before := self.known[step.name]["what"]) != step.what:
                raise ValueError(
                    f"{made} was made by `{shlex.join(before)}`, not by `{shlex.join(step.what)}`: remove it and what "
                    "comes after it, give the same options, or name another folder."
                )

    def check_order(self) -> None:
        """
        Refuse to keep what was made from something that is to be made anew.

        Raises:
            ValueError: A step of an earlier group is not finished, and one after it has made something.
        """
        missing: Step | None = None
        for group in self.groups:
            stale = next((step for step in group if missing and self.has_made(step)), None)
            if missing and stale:
                raise ValueError(
                    f"{missing.makes} is to be made anew, and {self.folder / stale.makes} was made from it: remove "
                    "that, too."
                )
            missing = missing or next((step for step in group if not self.is_finished(step)), None)

    def has_made(self, step: Step) -> bool:
        """Whether a step has left something."""
        made = self.folder / step.makes
        return made.is_file() or (made.is_dir() and any(made.iterdir()))

    def is_finished(self, step: Step) -> bool:
        """Whether a step is noted as finished, or is a training that ended when nobody was left to note it."""
        if step.name not in self.known or not self.has_made(step):
            return False
        made = self.folder / step.makes
        is_whole = (made / "config.json").is_file() and not (made / "state.pt").is_file()
        return self.known[step.name]["finished"] or (step.is_training and is_whole)

    def run_group(self, waiting: deque[Step]) -> None:
        """Run steps side by side, one a core; after a failure or a signal end those that run, and begin no more."""
        running: dict[Step, BaseProcess] = {}
        try:
            self.run_side_by_side(waiting, running)
        finally:
            for process in running.values():
                process.terminate()
            for step, process in running.items():
                process.join()
                wait_for_end(self.log_of(step))  # a signal to all processes may have ended the one that watched it

    def run_side_by_side(self, waiting: deque[Step], running: dict[Step, BaseProcess]) -> None:
        """Run the steps that wait, until one fails or a signal comes; `running` then has those that run."""
        while running or waiting:
            while waiting and len(running) < (os.cpu_count() or 1) and not self.is_stopped:
                step = waiting.popleft()
                running[step] = self.start(step)
            wait([process.sentinel for process in running.values()], timeout=WATCHED)
            if self.is_stopped:
                raise Stopped
            for step, process in list(running.items()):
                if process.exitcode is None:
                    continue
                del running[step]
                if process.exitcode:
                    raise StepFailed(self.say_failure(step, process.exitcode))
                self.note(step, finished=True)

    def start(self, step: Step) -> BaseProcess:
        """Begin a step."""
        log = self.log_of(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"[{self.names.index(step.name) + 1}/{len(self.names)}] {step.name} ({log})", flush=True)
        self.note(step, finished=False)
        return start_launched([sys.executable, *step.program, *step.words, *step.here], log, self.folder)

    def log_of(self, step: Step) -> Path:
        """Give the file that keeps what a step prints."""
        return self.runs / "steps" / step.name / "log.txt"

    def say_failure(self, step: Step, code: int) -> str:
        """Say what failed, and what it printed last."""
        log = self.log_of(step)
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-SAID:]
        killed = {128 + number: number.name for number in signal.Signals}
        how = f"was killed by {killed[code]}" if code in killed else f"ended with {code}"
        return "\n".join([*last, "", f"{step.name} {how}: {log}", step.command])

    def note(self, step: Step, finished: bool) -> None:
        """Write down that a step is begun, or finished."""
        self.known[step.name] = {"what": step.what, "finished": finished}
        write_text_whole(self.notes, json.dumps(self.known, indent=1))


def read_notes(path: Path) -> dict[str, dict]:
    """
    Read what is begun and finished.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        for note in notes.values():
            shlex.join(note["what"]), bool(note["finished"])
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, so that nobody knows what is finished: move {path.parent} away."
        ) from error
    return notes
