"""The list of a run's processes that Prometheus scrapes: a file that follows the run.

All runs of a user on a machine write into one folder, which `alphafuse targets` serves to Prometheus (or Prometheus
reads itself: `file_sd_configs`). A run touches its file as long as it lives and deletes it at its end. The file of a
killed run is recognised by its age; any other run deletes it, or the same run when it is started again.

The folder may be one that others can write to (`monitoring.targets`). So nothing in it is believed, touched or deleted
but regular files of this user: links, pipes, folders and files of others are passed over.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import socket
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alphafuse.storage.filesystem.private_folder import make_private, state_folder
from alphafuse.storage.workspace import Workspace

SUFFIX = ".json"
UNFINISHED = ".new"
STALE_SECONDS = 180.0
"""A file that has not been touched for this long belongs to a dead run. Long enough for the alert `RunDied` to fire."""
MAX_BYTES = 1 << 22
"""Longest list that is read: some 10,000 processes."""


@dataclass(frozen=True)
class Target:
    """A process to scrape.

    Attributes:
        address: "host:port".
        labels: added to all metrics of the process.
    """

    address: str
    labels: Mapping[str, str]


def default_folder() -> Path:
    """The folder of lists if the configuration names no other: one per user and machine (a home folder may be shared by
    several machines), the same for all jobs whatever their TMPDIR.

    Raises:
        ResourceError: the user has no home folder.
    """
    return state_folder("targets") / socket.gethostname()


def run_label(workspace: Workspace) -> str:
    """The label `run` of a run's metrics: the name of the workspace's folder and six digits that distinguish it from
    workspaces of the same name elsewhere. It stays the same when the run is started again."""
    uri = workspace.folder.uri
    place = uri if "://" in uri else f"{socket.gethostname()}:{uri}"
    return f"{workspace.name}-{hashlib.sha256(place.encode()).hexdigest()[:6]}"


class TargetFile:
    """The file that lists the processes of one run.

    Args:
        folder: folder of the lists; None: `default_folder()`, which is made for its owner alone.
        run: label of the run, which is unique.

    Raises:
        OSError: the folder cannot be written to.
        ResourceError: see `default_folder`.
    """

    def __init__(self, folder: Path | None, run: str) -> None:
        if folder is None:
            folder = default_folder()
            make_private(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"{run}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}{SUFFIX}"
        self._content = ""
        _delete(folder.glob(f"{glob.escape(run)}.*{SUFFIX}"))  # left by the same run when it was killed

    def write(self, targets: Sequence[Target]) -> None:
        """Write the list of processes. Must be called at least every `STALE_SECONDS`, with or without changes."""
        _delete(path for path in self._folder.iterdir() if path.suffix in (SUFFIX, UNFINISHED) and not is_alive(path))
        content = json.dumps([{"targets": [t.address], "labels": dict(t.labels)} for t in targets], indent=1)
        if content == self._content and _is_own_file(self._path):
            os.utime(self._path, follow_symlinks=False)
            return
        unfinished = self._path.with_suffix(UNFINISHED)
        _delete([unfinished])
        # Exclusive: where someone has put a link of this name, this is an error, and nothing is written through it.
        # Readable for everybody, since Prometheus may run as a user of its own.
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "w") as file:
            file.write(content)
        unfinished.replace(self._path)
        self._content = content

    def remove(self) -> None:
        """Delete the file, as the run has ended."""
        _delete([self._path])


def read_targets(folder: Path) -> list[dict[str, object]]:
    """The processes of all living runs of this user, in the format of Prometheus. Whatever is not a list that a run of
    this user wrote is passed over."""
    return [target for path in sorted(folder.glob(f"*{SUFFIX}")) if is_alive(path) for target in _read(path)]


def is_alive(path: Path) -> bool:
    """True while the run that wrote the file still touches it."""
    try:
        return time.time() - path.lstat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _read(path: Path) -> list[dict[str, object]]:
    """The content of one list; nothing where it is not a regular file of this user, or broken."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            listed = json.loads(file.read(MAX_BYTES)) if _is_own(os.fstat(file.fileno())) else []
    except (OSError, ValueError, RecursionError):  # the run may end meanwhile
        return []
    fields = {"targets": list, "labels": dict}
    whole = isinstance(listed, list) and all(
        isinstance(each, dict) and all(isinstance(each.get(name), kind) for name, kind in fields.items())
        for each in listed
    )
    return listed if whole else []


def _delete(paths: Iterable[Path]) -> None:
    """Delete those that are regular files of this user."""
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):
            if _is_own_file(path):
                path.unlink()


def _is_own_file(path: Path) -> bool:
    try:
        return _is_own(path.lstat())
    except FileNotFoundError:
        return False


def _is_own(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
