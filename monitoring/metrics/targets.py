"""The list of a run's processes that Prometheus scrapes: a file that follows the run (Prometheus: `file_sd_configs`).

All runs of a machine write into one folder, which Prometheus watches. A run touches its file as long as it lives; the
file goes when the run ends. What a killed run left is told by its age and deleted by any other, or by the same run when
it is started again.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alphafuse.storage.workspace import Workspace

SUFFIX = ".json"
STALE_SECONDS = 180.0
"""A file that has not been touched for so long belongs to a dead run. Long enough for an alert about its death."""


@dataclass(frozen=True)
class Target:
    """A process to scrape.

    Attributes:
        address: "host:port".
        labels: of all its metrics.
    """

    address: str
    labels: Mapping[str, str]


def default_folder() -> Path:
    """Where runs list their processes if the configuration names no other folder: one for all users and all jobs of a
    machine, whatever their TMPDIR, since Prometheus looks nowhere else."""
    return Path("/tmp/alphafuse/targets")


def run_label(workspace: Workspace) -> str:
    """What metrics call a run: the name of its workspace's folder, with some digits that tell it from others of that
    name, of other users, comparisons or machines. The same whenever the run is started again."""
    uri = workspace.folder.uri
    place = uri if "://" in uri else f"{socket.gethostname()}:{uri}"
    return f"{workspace.name}-{hashlib.sha256(place.encode()).hexdigest()[:6]}"


class TargetFile:
    """The file of one run, whose label no other run has.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, run: str) -> None:
        _make_folder(folder)
        self._folder = folder
        self._path = folder / f"{run}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}{SUFFIX}"
        self._content = ""
        _delete(folder.glob(f"{glob.escape(run)}.*{SUFFIX}"))  # of the same run, which was killed

    def write(self, targets: Sequence[Target]) -> None:
        """Say what the processes are; to be called again at least every `STALE_SECONDS`, with or without changes."""
        _delete(path for path in self._folder.glob(f"*{SUFFIX}") if not is_alive(path))
        content = json.dumps([{"targets": [t.address], "labels": dict(t.labels)} for t in targets], indent=1)
        if content == self._content and self._path.exists():
            self._path.touch()
            return
        unfinished = self._path.with_suffix(".new")
        unfinished.write_text(content)
        unfinished.replace(self._path)
        self._content = content

    def remove(self) -> None:
        """The run is over."""
        self._path.unlink(missing_ok=True)


def read_targets(folder: Path) -> list[dict[str, object]]:
    """What all living runs list together, as Prometheus takes it."""
    listed: list[dict[str, object]] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):  # the run may end meanwhile
            listed += json.loads(path.read_text()) if is_alive(path) else []
    return listed


def is_alive(path: Path) -> bool:
    """Whether the run that wrote a file still touches it."""
    try:
        return time.time() - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _delete(paths: Iterable[Path]) -> None:
    """Those of other users stay, in a folder that is open to all: theirs to delete."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            path.unlink()


def _make_folder(folder: Path) -> None:
    """Open to all users of the machine, as /tmp is: one Prometheus watches the runs of everyone."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for made in (folder, folder.parent) if folder == default_folder() else ():
            made.chmod(0o1777)
