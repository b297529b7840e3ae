"""Kills whoever changes a folder, at a chosen change; deletions of folders are killed in their middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from alphafuse.storage.filesystem.folder import Folder


class Killed(BaseException):
    """The end of the process."""


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> list[str]:
    """Kill before change number `moment`, from 0 on; returns the names of the changes so far."""
    calls: list[str] = []
    for name in ("write_bytes", "delete_files", "delete"):
        change: Callable[..., Any] = getattr(Folder, name)

        def counted(folder: Folder, *arguments: Any, name: str = name, change: Callable[..., Any] = change) -> Any:
            calls.append(name)
            if len(calls) <= moment:
                return change(folder, *arguments)
            if name == "delete":
                folder.delete_files([file for file, size in folder.sizes().items() if size is not None][:1])
            raise Killed

        patch.setattr(Folder, name, counted)
    return calls
