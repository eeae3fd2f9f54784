"""
Commands one after another, of which a folder keeps what is finished, so that a long chain of them can be stopped.

`make_everyday.py` uses it.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from processing_mac.whole_files_mac import write_text_whole


@dataclass(frozen=True)
class Step:
    """
    One command, which when it is given again goes on where it was stopped.

    Args:
        name: Name of the step.
        words: Words behind `python`.
        makes: Folder of the MAC that it makes, if it refuses to run once that is finished.
    """

    name: str
    words: tuple[str, ...]
    makes: str | None = None

    @property
    def command(self) -> str:
        """The command as one types it."""
        return shlex.join(["python", *self.words])


class Steps:
    """
    Runs steps in a folder, and notes there which are finished.

    Args:
        groups: Steps in groups: those of a group may run side by side, and each group needs what is before it.
        folder: Folder in which the commands run.
        state: File in which is noted what is begun and finished.

    Raises:
        ValueError: A step was begun in this folder by another command.
    """

    def __init__(self, groups: Sequence[Sequence[Step]], folder: Path, state: Path):
        self.groups, self.folder, self.state = groups, folder, state
        self.steps = [step for group in groups for step in group]
        self.known = json.loads(state.read_text(encoding="utf-8")) if state.is_file() else {}
        self.lock, self.running, self.stopped = Lock(), set[subprocess.Popen](), False
        for step in self.steps:
            begun = self.known.get(step.name)
            if begun and begun["words"] != list(step.words):
                before = Step(step.name, tuple(begun["words"])).command
                raise ValueError(
                    f"{state}: step {step.name} was begun by another command,\n  {before}\nand would now be\n  "
                    f"{step.command}\nGive the same options, or name another folder."
                )

    def run(self) -> None:
        """
        Run all steps that are not finished.

        Raises:
            subprocess.CalledProcessError: A step failed.
        """
        self.state.parent.mkdir(parents=True, exist_ok=True)
        for group in self.groups:
            waiting = [step for step in group if not self.is_finished(step)]
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                try:
                    for future in [pool.submit(self.run_one, step) for step in waiting]:
                        future.result()
                except BaseException:
                    self.stop()
                    raise

    def run_one(self, step: Step) -> None:
        """Run one step, unless all are to stop."""
        with self.lock:
            if self.stopped:
                return
            print(f"[{self.steps.index(step) + 1}/{len(self.steps)}] {step.name}", flush=True)
            self.note(step, finished=False)
            process = subprocess.Popen([sys.executable, *step.words], cwd=self.folder)
            self.running.add(process)
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, step.command)
        with self.lock:
            self.running.remove(process)
            self.note(step, finished=True)

    def stop(self) -> None:
        """End what runs, and begin nothing more."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()

    def is_finished(self, step: Step) -> bool:
        """Whether a step is noted as finished, or was so when nobody was left to note it."""
        begun = self.known.get(step.name)
        if begun is None or begun["finished"] or step.makes is None:
            return bool(begun and begun["finished"])
        made = self.folder / step.makes
        return (made / "config.json").is_file() and not (made / "state.pt").is_file()

    def note(self, step: Step, finished: bool) -> None:
        """Write down that a step is begun, or finished."""
        self.known[step.name] = {"words": list(step.words), "finished": finished}
        write_text_whole(self.state, json.dumps(self.known, indent=1))
