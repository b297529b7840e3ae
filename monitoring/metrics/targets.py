"""The list of a run's processes that Prometheus scrapes: a file that follows the run (Prometheus: `file_sd_configs`).

All runs of a machine write into one folder, which Prometheus watches. A run touches its file as long as it lives and
deletes it at its end. The file of a killed run is recognised by its age; any other run deletes it, or the same run when
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
"""A file that has not been touched for this long belongs to a dead run. Long enough for the alert `RunDied` to fire."""


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
    """The folder of lists if the configuration names no other. It is the same for all users and jobs of a machine,
    whatever their TMPDIR, since Prometheus watches only this one."""
    return Path("/tmp/alphafuse/targets")


def run_label(workspace: Workspace) -> str:
    """The label `run` of a run's metrics: the name of the workspace's folder and six digits that distinguish it from
    workspaces of the same name elsewhere. It stays the same when the run is started again."""
    uri = workspace.folder.uri
    place = uri if "://" in uri else f"{socket.gethostname()}:{uri}"
    return f"{workspace.name}-{hashlib.sha256(place.encode()).hexdigest()[:6]}"


class TargetFile:
    """The file that lists the processes of one run.

    Args:
        run: label of the run, which is unique.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, run: str) -> None:
        _make_folder(folder)
        self._folder = folder
        self._path = folder / f"{run}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}{SUFFIX}"
        self._content = ""
        _delete(folder.glob(f"{glob.escape(run)}.*{SUFFIX}"))  # left by the same run when it was killed

    def write(self, targets: Sequence[Target]) -> None:
        """Write the list of processes. Must be called at least every `STALE_SECONDS`, with or without changes."""
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
        """Delete the file, as the run has ended."""
        self._path.unlink(missing_ok=True)


def read_targets(folder: Path) -> list[dict[str, object]]:
    """The processes of all living runs, in the format of Prometheus."""
    listed: list[dict[str, object]] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):  # the run may end meanwhile
            listed += json.loads(path.read_text()) if is_alive(path) else []
    return listed


def is_alive(path: Path) -> bool:
    """True while the run that wrote the file still touches it."""
    try:
        return time.time() - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _delete(paths: Iterable[Path]) -> None:
    """Delete files; those of other users stay, as only their owners may delete them in a shared folder."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            path.unlink()


def _make_folder(folder: Path) -> None:
    """Make the folder, writable for all users of the machine: one Prometheus watches the runs of everyone."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for made in (folder, folder.parent) if folder == default_folder() else ():
            made.chmod(0o1777)
