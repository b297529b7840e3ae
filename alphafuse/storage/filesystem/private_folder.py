"""Folders on this machine that belong to one user alone: where they lie, and that nobody else can write into them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from alphafuse.errors import ResourceError


def state_folder(name: str) -> Path:
    """Path of a folder for what this program keeps between commands: `$XDG_STATE_HOME/alphafuse/NAME`, by default below
    `~/.local/state`. The folder need not exist.

    Raises:
        ResourceError: the user has no home folder.
    """
    return Path(os.environ.get("XDG_STATE_HOME") or home() / ".local" / "state") / "alphafuse" / name


def cache_folder(name: str) -> Path:
    """Path of a folder for what can be made again: `$XDG_CACHE_HOME/alphafuse/NAME`, by default below `~/.cache`. The
    folder need not exist.

    Raises:
        ResourceError: the user has no home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "alphafuse" / name


def home() -> Path:
    """The home folder of this user.

    Raises:
        ResourceError: there is none.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise ResourceError("this user has no home folder: set HOME to a folder that it may write to") from error


def make_private(folder: Path) -> None:
    """Make a folder, and the missing ones above it, for its owner alone (mode 0700); one that is there already loses
    the rights of others. A link is followed where it is this user's own.

    Raises:
        OSError: the folder cannot be made, is no folder, or belongs to another user.
    """
    for missing in reversed([each for each in (folder, *folder.parents) if not os.path.lexists(each)]):
        missing.mkdir(mode=0o700, exist_ok=True)
    for found in (folder.lstat(), folder.stat()):
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"it belongs to another user (id {found.st_uid})", str(folder))
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(folder))
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
