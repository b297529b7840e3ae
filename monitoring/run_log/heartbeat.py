"""The heartbeat of a run: a file that its process keeps writing, so that nobody else works in the same workspace, and
whoever reads the workspace knows whether the process lives.

Events cannot tell this. A process that was killed reports nothing, and a process that validates on a large catalog may
report nothing for minutes either. Object stores have no locks, and the clocks of machines differ. So a process that
finds the heartbeat of another machine's process watches it: as long as it changes, its owner lives.
"""

from __future__ import annotations

import dataclasses
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from alphafuse.errors import OwnershipError
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.ownership import (
    HEARTBEAT,
    Beat,
    Guard,
    alone,
    beat_of_this_process,
    read_beat,
    write_beat,
)
from alphafuse.storage.workspace import Workspace

BEAT_SECONDS = 10.0
LOST_SECONDS = 60.0
"""A run that has missed its beats for so long counts as lost: its process died, or cannot reach the storage."""
SETTLE_SECONDS = 2.0
"""Time after which two processes that wrote a first beat at once, on storage without locks, see whose beat stands."""
LOOK_SECONDS = 0.5
"""Time between two looks at a heartbeat that is watched."""


class Heartbeat:
    """Context that owns a workspace: it takes the workspace, writes beats from a thread of its own until the block
    ends, with or without an error, and gives it back.

    Args:
        folder: folder of the heartbeat.
        place: URI of what is owned, for messages.
        say: gets a message when the owner must wait for the beats of another one to stay away.
        seconds: time between two beats.

    Raises:
        OwnershipError: on entering, another process works there.
    """

    def __init__(
        self,
        folder: Folder,
        place: str,
        say: Callable[[str], None] = lambda message: None,
        seconds: float = BEAT_SECONDS,
    ) -> None:
        self.guard = Guard(folder, secrets.token_hex(8), place)
        self.leaves_trace = True
        """False: the end of the block puts back the heartbeat that was there, as if the owner had never been."""
        self._say = say
        self._seconds = seconds
        self._beat = beat_of_this_process(self.guard.token, _command_line())
        self._before: bytes | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._keep(self._give_back)

    def _take(self) -> None:
        """Write the first beat, once nobody else owns the workspace."""
        folder, watched, until = self.guard.folder, None, 0.0
        while True:
            with alone(folder) as is_alone:
                content, other = read_beat(folder)
                silent = watched is not None and content == watched and time.monotonic() >= until
                if content is None or silent or (other is not None and (other.ended or other.is_dead)):
                    self._before = None if other is None else content  # a damaged one is not put back
                    self._write()
                    break
            if _beats_here(other) or (watched is not None and content != watched):
                raise self._refusal(other)
            if watched is None:
                watched, until = content, time.monotonic() + LOST_SECONDS
                self._say(self._waiting(other))
            time.sleep(LOOK_SECONDS)
        if not is_alone:
            time.sleep(SETTLE_SECONDS)
            _, other = read_beat(folder)
            if other is not None and other.token != self.guard.token:
                raise self._refusal(other)

    def _repeat(self) -> None:
        while not self._over.wait(self._seconds):
            self._keep(self._write)

    def _keep(self, write: Callable[[], None]) -> None:
        """Write to the heartbeat unless it has become another one's."""
        try:
            with alone(self.guard.folder):
                self.guard.require()
                write()
        except OwnershipError:
            self._over.set()  # nothing is written any more, and the guard stops the run before it commits anything
        except Exception:  # whatever a storage raises
            # A run goes on when its storage is full or does not answer for a moment; readers see that beats stay away.
            return

    def _write(self) -> None:
        write_beat(self.guard.folder, dataclasses.replace(self._beat, time=time.time(), ended=self._over.is_set()))

    def _give_back(self) -> None:
        folder = self.guard.folder
        if self.leaves_trace:
            self._write()
        elif self._before is not None:
            folder.write_bytes(HEARTBEAT, self._before)
        else:
            folder.delete_files([HEARTBEAT])
            if not folder.names():
                folder.delete()

    def _refusal(self, other: Beat | None) -> OwnershipError:
        owner = "another process" if other is None else other.owner
        return OwnershipError(
            f"{self.guard.place} is in use by {owner}. Nothing was changed: wait for its end, stop it, or give another "
            "`workspace`"
        )

    def _waiting(self, other: Beat | None) -> str:
        owner = "an unknown process" if other is None else other.owner
        return (
            f"{self.guard.place} was last used by {owner}, which has not said that it ended; this run takes over in "
            f"{LOST_SECONDS:.0f} s unless that one gives a sign of life"
        )


def _command_line() -> str:
    """The command line of this process; empty in a worker of Ray, whose arguments are Ray's own."""
    program = Path(sys.argv[0]).name
    return "" if program == "default_worker.py" else shlex.join([program, *sys.argv[1:]])


def _beats_here(beat: Beat | None) -> bool:
    """True for a living process of this machine with a recent beat: their times are of one clock."""
    return beat is not None and beat.is_of_this_machine and 0 <= time.time() - beat.time < LOST_SECONDS


def own(workspace: Workspace, say: Callable[[str], None] = lambda message: None) -> Heartbeat:
    """The context that owns a workspace (see `Heartbeat`)."""
    return Heartbeat(workspace.events, workspace.folder.uri, say)


@contextmanager
def only_owner(workspace: Workspace) -> Iterator[None]:
    """Own a workspace for a moment, and leave its heartbeat as it was.

    Raises:
        OwnershipError: a run works there.
    """
    with own(workspace) as heartbeat:
        heartbeat.leaves_trace = False
        yield


def read_heartbeat(workspace: Workspace) -> Beat | None:
    """The latest beat; None if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    content, beat = read_beat(workspace.events)
    if content is not None and beat is None:
        raise ValueError(f"events/{HEARTBEAT} is damaged")
    return beat
