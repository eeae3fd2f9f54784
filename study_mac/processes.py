"""
Commands in processes of their own, which end when the one that asks for them does, however that ends.

A command of this project is forked from a process that has imported everything. What a launcher starts is watched by a
process beside it, since a launcher that is ended does not always end what it has launched.
"""

import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from filelock import FileLock, Timeout


SERVER = multiprocessing.get_context("forkserver")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WATCHED = 0.5  # seconds from one look at a launcher to the next
ENDING = 40.0  # seconds in which launched processes may end by themselves; torchrun gives its own ones 30


def run_words(words: Sequence[str], log: Path, launch: str = "") -> int:
    """
    Run a module's command and wait for it.

    Args:
        words: Name of the module and its arguments.
        log: File that takes, at its end, the command and what it prints.
        launch: Words before `-m`, such as `accelerate launch`; this Python without a launcher if "".

    Returns:
        Its exit code.
    """
    if launch:
        process = start_launched([*shlex.split(launch), "-m", *words], log)
    else:
        note_command([sys.executable, "-m", *words], log)
        process = SERVER.Process(target=run_main, args=(list(words), *surroundings(log)))
        process.start()
    try:
        process.join()
    finally:  # also where this process alone is interrupted
        process.terminate()
        process.join()
    return process.exitcode or 0


def start_launched(command: Sequence[str], log: Path, folder: Path | None = None) -> BaseProcess:
    """
    Start a command that may start others.

    Args:
        command: Its words.
        log: File that takes, at its end, the command and what it prints; a lock beside it lets in one at a time.
        folder: Folder to run it in; this one if None.

    Returns:
        A process that ends, with the command's exit code, when it has ended and what it had started was ended, too.
        All of them are ended with this process, and by `terminate`.
    """
    note_command(command, log)
    process = SERVER.Process(target=run_launched, args=(list(command), *surroundings(log, folder), ENDING))
    process.start()
    return process


def wait_for_end(log: Path) -> None:
    """Wait until a launched command has ended, even if the process that `start_launched` gave was ended before it."""
    with suppress(Timeout), lock_of(log).acquire(timeout=2 * ENDING):
        pass


def lock_of(log: Path) -> FileLock:
    """Give the lock that a launched command with this log holds until all has ended."""
    return FileLock(log.with_name("launched.lock"))


def note_command(command: Sequence[str], log: Path) -> None:
    """Write a command at the end of its log."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command)}\n")


def surroundings(log: Path, folder: Path | None = None) -> tuple[str, str, dict[str, str]]:
    """Give the log, the folder and the environment of a command, which a process that is forked has of its start."""
    return str(log.absolute()), str((folder or Path()).absolute()), dict(os.environ)


def run_main(words: list[str], log: str, folder: str, environment: dict[str, str]) -> None:
    """In a new process: a module's command, in the folder and environment of the one that asks for it."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ |= environment
    os.chdir(folder)
    with open(log, "ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = words
    sys.exit(import_module(words[0]).main(words[1:]))


def end_with_parent() -> None:
    """End this process when the one that asked for it is gone: it would train beside the same command's next call."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def is_parent_alive() -> bool:
    """Tell whether the process that asked for this one is there."""
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def run_launched(words: list[str], log: str, folder: str, environment: dict[str, str], ending: float) -> None:
    """In a new process: a launcher's command; it and all that it has started end with the one that asks for it."""
    told: list[int] = []
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, lambda number, frame: told.append(number))
    lock = lock_of(Path(log))
    while not lock.is_locked:  # another one may still be ending
        if told or not is_parent_alive():
            sys.exit(1)
        with suppress(Timeout):
            lock.acquire(timeout=WATCHED)
    # Held until all has ended, which may take longer than the process that asked for it lives.
    with lock, open(log, "ab") as file:
        try:
            launcher = psutil.Popen(words, cwd=folder, env=environment, stdout=file, stderr=file)
        except OSError as error:
            file.write(f"{error}\n".encode())
            sys.exit(1)
        started: set[psutil.Process] = {launcher}
        is_wanted = True
        while is_wanted and launcher.poll() is None:
            time.sleep(WATCHED)
            is_wanted = not told and is_parent_alive()
            with suppress(psutil.NoSuchProcess):  # once the launcher is gone nobody knows whose they are
                started.update(launcher.children(recursive=True))
        end(started if not is_wanted else started - {launcher}, ending)
        code = launcher.wait()
    sys.exit(code if code >= 0 else 128 - code)  # as shells tell a signal


def end(processes: set[psutil.Process], seconds: float) -> None:
    """End processes; those that take longer are killed."""
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
