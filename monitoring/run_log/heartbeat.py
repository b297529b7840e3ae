"""The heartbeat of a run: a file that its process keeps writing, so that the workspace tells whether the process lives.

Events cannot tell this. A process that was killed reports nothing, and a process that validates on a large catalog may
report nothing for minutes either.
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
"""A run whose latest beat is older than this counts as lost: its process died, or cannot reach the storage."""


@dataclass(frozen=True)
class Beat:
    """The content of the file.

    Attributes:
        time: time of the latest beat, seconds since the epoch.
        ended: True if the process has left the run, with success or not.
    """

    time: float
    ended: bool


class Heartbeat:
    """Context that writes beats from a thread of its own until the block ends, with or without an error."""

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
            # A run goes on when its storage is full or does not answer for a moment; readers see the age of the beat.
            return


def read_heartbeat(workspace: Workspace) -> Beat | None:
    """The latest beat; None if there is none."""
    folder = workspace.folder / "events"
    return Beat(**json.loads(folder.read_bytes(FILE))) if folder.exists(FILE) else None
