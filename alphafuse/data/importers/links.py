"""Checks the links inside of a local folder: no file may be read twice, and none may be missing.

A link to a folder above it would be followed again and again.
"""

from __future__ import annotations

import os

from alphafuse.errors import DataError


def require_each_file_once(key: str, folder: str) -> None:
    """Follow all links inside of a folder; hidden files are left out.

    Args:
        key: key of the folder in the configuration, for messages.

    Raises:
        DataError: a link leads nowhere, or to a file or folder that is read anyway.
    """
    waiting, links = [folder], []
    paths: dict[tuple[int, int], str] = {}  # by device and number of the file
    while waiting:
        inside = waiting.pop()
        _note(key, inside, paths)
        with os.scandir(inside) as entries:
            for entry in entries:
                if entry.name.startswith((".", "_")):
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                elif entry.is_symlink():
                    links.append(entry.path)
                else:
                    found = entry.stat()
                    paths[found.st_dev, found.st_ino] = entry.path  # a second name of a file (a hard link) is a file
    for link in links:
        _note(key, link, paths)


def _note(key: str, path: str, paths: dict[tuple[int, int], str]) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{key}: the link {path} leads nowhere ({error.strerror}): remove or correct it") from error
    other = paths.setdefault((found.st_dev, found.st_ino), path)
    if other != path:
        raise DataError(f"{key}: {path} is a link to {other}, whose rows would be read twice: remove the link")
