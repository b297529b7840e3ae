"""Tells which process owns a workspace, and keeps every other one from committing anything there.

The owner is named in a small file that its process keeps writing, the heartbeat (`monitoring/run_log/heartbeat.py`),
since object stores have no locks. Every write of an artefact asks a `Guard` first. This module knows neither threads
nor waiting.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow.fs as pafs

from alphafuse.errors import OwnershipError
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import read_json_object

HEARTBEAT = "heartbeat.json"
LOCK_SECONDS = 5.0
"""Longest wait for another process of this machine that looks at a heartbeat; a look takes milliseconds."""


@dataclass(frozen=True)
class Beat:
    """The content of a heartbeat.

    Attributes:
        time: time of the latest beat by the clock of its machine, seconds since the epoch.
        ended: True if the process has left the run, with success or not.
        token: random name of the owner; empty in files of version 0.1.0, as are the following.
        host: machine, for messages.
        space: what process ids are unique in: the boot of a machine and a namespace of it; empty if unknown.
        pid: id of the process.
        born: start of the process, in ticks since the boot: ids are used again.
        command: what the process was called with.
    """

    time: float
    ended: bool
    token: str = ""
    host: str = ""
    space: str = ""
    pid: int = 0
    born: int = 0
    command: str = ""

    @property
    def owner(self) -> str:
        """The process, for messages."""
        if not self.token:
            return "a process that it does not name"
        command = f", `{_shown(self.command, 200)}`" if self.command else ""
        return f"process {self.pid} on {_shown(self.host, 100)}{command}"

    @property
    def is_of_this_machine(self) -> bool:
        return bool(self.space) and self.space == process_space()

    @property
    def is_dead(self) -> bool:
        """True if the process is known to be gone; False if it runs, or is another machine's."""
        return self.is_of_this_machine and process_start(self.pid) != self.born


def _shown(text: str, length: int) -> str:
    """The beginning of a text that another process wrote, for a message in one line."""
    return "".join(character if character.isprintable() else "?" for character in text)[:length]


def beat_of_this_process(token: str, command: str) -> Beat:
    """A first beat of this process, as an owner called `token`."""
    pid = os.getpid()
    return Beat(time.time(), False, token, socket.gethostname(), process_space(), pid, process_start(pid) or 0, command)


def process_space() -> str:
    """The space in which process ids are unique: a boot of a machine, and a namespace of it (containers have their
    own); empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """Start of a process, in ticks since the boot; None if it does not run, or is a zombie."""
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(numbers[18])


def read_beat(folder: Folder) -> tuple[bytes | None, Beat | None]:
    """The content of the heartbeat in a folder, None if there is none, and the beat in it, None if it holds none."""
    try:
        content = folder.read_bytes(HEARTBEAT)
    except FileNotFoundError:
        return None, None
    try:
        values = read_json_object(content)
        known = {field.name: type(field.default) for field in fields(Beat) if field.name not in ("time", "ended")}
        beat = Beat(float(values["time"]), bool(values["ended"]), **{k: values[k] for k in known if k in values})
        whole = all(isinstance(getattr(beat, name), kind) for name, kind in known.items())
    except (ValueError, TypeError, KeyError):
        return content, None
    return content, beat if whole else None


def write_beat(folder: Folder, beat: Beat) -> None:
    """Replace the heartbeat in a folder."""
    folder.write_bytes(HEARTBEAT, json.dumps(asdict(beat)).encode())


@contextmanager
def alone(folder: Folder) -> Iterator[bool]:
    """Let one process of this machine at a time look at a heartbeat and change it.

    Yields:
        True if nobody else can do so in the block; False on storage without locks.
    """
    filesystem, path = folder.open()
    if not isinstance(filesystem, pafs.LocalFileSystem):
        yield False
        return
    os.makedirs(path, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)  # which gives the lock back, as the death of the process does


def _locked(descriptor: int) -> bool:
    """Lock an open folder; returns False if its file system has no locks, or a stopped process holds it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            return False
    return False


@dataclass(frozen=True)
class Guard:
    """Answers for one owner whether a workspace is still its own. Picklable: workers on other machines ask, too.

    Attributes:
        folder: folder of the heartbeat.
        token: name of the owner.
        place: URI of the workspace, for messages.
    """

    folder: Folder
    token: str
    place: str

    def require(self) -> None:
        """Check that no other process has taken the workspace over.

        A heartbeat that is missing or damaged names nobody else: the owner writes it again.

        Raises:
            OwnershipError: another process has, since this one gave no sign of life for too long.
        """
        _, beat = read_beat(self.folder)
        if beat is not None and beat.token != self.token:
            raise OwnershipError(
                f"{self.place} has been taken over by {beat.owner}, since this run gave no sign of life for too long "
                "(its process, machine or storage stood still). This run stops here; the other one goes on from what "
                "is finished"
            )
