"""The aliases of a registry: which version is in production, and which ones come before and after it.

All aliases stand in one file, which is never changed: every change writes the next one, and the highest number counts.
So all aliases change in one step, a process that is killed leaves the old ones or the new ones, and earlier files tell
what was in production when.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter

from alphafuse.errors import WorkspaceError
from alphafuse.registry.version import VersionId, from_bytes, to_bytes, validated
from alphafuse.storage.filesystem.exclusive import create
from alphafuse.storage.filesystem.folder import Folder

NAMES = ("production", "candidate", "previous")
"""All aliases."""
ATTEMPTS = 20
"""Number of changes by others, one right after the other, at which a change gives up."""


@dataclass(frozen=True)
class Aliases:
    """The aliases at one time.

    Attributes:
        number: number of changes so far.
        production: id of the version that serves; None: none yet.
        candidate: id of the version that was added last and has not served.
        previous: id of the version that served before, which `rollback` returns to.
        removed: ids of versions that were given up by `gc`: no alias may name them any more.
        change: what led here, such as "promote v0007".
        time: time of the change, in ISO 8601 and UTC.
    """

    number: int = 0
    production: VersionId | None = None
    candidate: VersionId | None = None
    previous: VersionId | None = None
    removed: tuple[VersionId, ...] = ()
    change: str = ""
    time: str = ""

    def named(self) -> set[str]:
        """Ids of the versions that have an alias."""
        return {version for name in NAMES if (version := getattr(self, name)) is not None}


def read_aliases(folder: Folder) -> Aliases:
    """The aliases of a registry, whose folder of aliases is given; no version has one where nothing is.

    Raises:
        WorkspaceError: the latest file is damaged.
    """
    names = [name for name in folder.names() if re.fullmatch(r"\d{9}\.json", name)]
    if not names:
        return Aliases()
    latest = max(names)
    try:
        aliases = validated(_ALIASES, from_bytes(folder.read_bytes(latest)))
        if f"{aliases.number:09d}.json" != latest:
            raise ValueError(f"it is the file of change {aliases.number}")
    except (IsADirectoryError, ValueError) as error:
        raise WorkspaceError(
            f"{folder.uri}/{latest} cannot be used: {error}.",
            "The file before it holds the aliases before this change: delete the damaged one, then change them again "
            "(`alphafuse models promote` or `rollback`)",
        ) from error
    return aliases


def change_aliases(folder: Folder, change: str, new: Callable[[Aliases], Aliases]) -> Aliases:
    """Change the aliases by compare-and-swap: the next file is created only if nobody else has created it.

    Args:
        change: what is done, for the file.
        new: gives the new aliases from those that hold; it is called again when another process was faster, and raises
            what refuses the change.

    Returns:
        The aliases that hold now.

    Raises:
        WorkspaceError: others change them all the time.
    """
    for _ in range(ATTEMPTS):
        held = read_aliases(folder)
        wanted = new(held)
        if wanted == held:
            return held
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        wanted = replace(wanted, number=held.number + 1, change=change, time=time)
        if create(folder, f"{wanted.number:09d}.json", to_bytes(asdict(wanted))):
            return wanted
    raise WorkspaceError(f"{folder.uri} is changed by other processes all the time", "Try again later")


_ALIASES = TypeAdapter(Aliases)
