"""Tells from the workspace alone whether a run's process still lives: a file that it writes anew while it does.

Events cannot tell: a process that was killed says nothing, and one that validates on a large catalog may say nothing
for minutes either.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from alphafuse.errors import ResourceError
from alphafuse.storage.workspace import Workspace

FILE = "heartbeat.json"
BEAT_SECONDS = 10.0
LOST_SECONDS = 60.0
"""A run whose latest beat is older has lost its process, or its machine the storage."""


@dataclass(frozen=True)
class Beat:
    """What the file says.

    Attributes:
        time: of the latest beat, seconds since the epoch.
        ended: the process has left the run, with success or not.
    """

    time: float
    ended: bool


class Heartbeat:
    """A context: beats from a thread of its own until the block ends, however it does."""

    def __init__(self, workspace: Workspace, seconds: float = BEAT_SECONDS) -> None:
        self._folder = workspace.folder / "events"
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.is_set():
            self._write(ended=False)
            self._over.wait(self._seconds)
        self._write(ended=True)

    def _write(self, ended: bool) -> None:
        try:
            self._folder.write_bytes(FILE, json.dumps({"time": time.time(), "ended": ended}).encode())
        except (OSError, ResourceError):
            # A run goes on when its storage is full or silent for a moment; who reads sees the age of the file.
            return


def read_heartbeat(workspace: Workspace) -> Beat | None:
    """The latest beat, None where a run has never beaten."""
    folder = workspace.folder / "events"
    return Beat(**json.loads(folder.read_bytes(FILE))) if folder.exists(FILE) else None
