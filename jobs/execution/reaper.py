"""Ends what is left of an embedded Ray when its driver has died: `python -P reaper.py PID FOLDER...`.

Ray alone does not: the kernel kills its servers with the driver, and its workers follow within a second, but the two
agents of the raylet (dashboard agent, runtime environment agent) first try for a minute to report the raylet's end to a
server that has died, too, and the subprocesses of a worker may stay for ever.

The embedded Ray has a folder of its own, in which each of its processes writes a log; a worker's subprocesses inherit
that log. So its processes are those with a file of the folder open for writing, however and whenever they were started,
and none of another cluster. This module imports nothing of this project: it must start at once, and outlive its driver.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

POLL_SECONDS = 0.3
QUIET_SECONDS = 1.0
"""Nothing may be left for this long: a process that was just being started is found, too."""
LIMIT_SECONDS = 30.0


@contextmanager
def reaper(*folders: str) -> Iterator[None]:
    """Context that, if this process dies within it, ends all processes that write into the folders and deletes them."""
    command = [sys.executable, "-P", __file__, str(os.getpid()), *folders]
    # A session of its own: Ctrl-C and the end of the terminal reach the driver, and not the reaper.
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **streams)  # type: ignore[call-overload]
    try:
        yield
    finally:
        process.kill()
        process.wait()


def reap(folders: Sequence[str]) -> None:
    """Kill all processes of this user that have a file in one of the folders open for writing; delete the folders."""
    started = quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS and time.monotonic() - started < LIMIT_SECONDS:
        for process in _writers(folders):
            quiet_since = time.monotonic()
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(POLL_SECONDS)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _writers(folders: Sequence[str]) -> Iterator[psutil.Process]:
    inside = tuple(os.path.join(folder, "") for folder in folders)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real == os.getuid() and any(
                file.path.startswith(inside) and getattr(file, "mode", "w") != "r"  # reading a log is no reason to die
                for file in process.open_files()
            ):
                yield process


def main() -> None:
    """Wait for the end of the driver, then reap."""
    driver, *folders = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a scheduler may send it to all processes of a job
    while os.getppid() == int(driver):
        time.sleep(POLL_SECONDS)
    reap([str(Path(folder)) for folder in folders])


if __name__ == "__main__":
    main()
