"""Checks that the files of a log are increments: those that have been read before, unchanged, and then new ones.

Knows nothing of the content of the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alphafuse.errors import DataError

REMEDY = "Files of the log are increments (data.interactions.increments), read in the order of their names"


def require_increments(before: Sequence[Mapping[str, Any]], files: Sequence[Mapping[str, Any]]) -> None:
    """Check the files of a log.

    Args:
        before: identities (`Source.identity`) of the files that the parent has read, in their order; empty for a first
            training.
        files: identities of the files that are there, in their order.

    Raises:
        DataError: a file is missing, has changed or is there twice, or a new one does not come after all others.
    """
    names = [_name(file) for file in files]
    contents: dict[str, str] = {}
    for file in files:
        content = file.get("sha256")
        if content is not None and contents.setdefault(content, _name(file)) != _name(file):
            raise DataError(
                f"the increment {_name(file)!r} repeats {contents[content]!r}: their contents are equal. {REMEDY}; "
                "remove one of them"
            )
    for place, known in enumerate(before):
        name = _name(known)
        if name not in names:
            raise DataError(
                f"the increment {name!r} is missing, which the parent has read. {REMEDY}: put it back, since the log "
                "is read as a whole"
            )
        if files[names.index(name)] != known:
            raise DataError(
                f"the increment {name!r} has changed since the parent has read it. {REMEDY}: put corrections into a "
                "new one, or train from scratch with `alphafuse run`"
            )
        if names[place] != name:
            raise DataError(
                f"the increment {names[place]!r} comes before {name!r}, which the parent has read already, and is new. "
                f"{REMEDY}: give it a name that comes after all others, or train from scratch with `alphafuse run`"
            )


def _name(file: Mapping[str, Any]) -> str:
    name: str = file.get("name", file["format"])  # a data set of Hugging Face has no name of a file
    return name
