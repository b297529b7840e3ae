"""The heartbeat: it goes on while the block runs, records the end, and survives a storage that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from alphafuse.errors import ResourceError
from alphafuse.storage.folder import Folder
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.heartbeat import Heartbeat, read_heartbeat


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_beats_until_the_block_ends(tmp_path: Path, scheme: str) -> None:
    workspace = Workspace(f"{scheme}{tmp_path}")
    assert read_heartbeat(workspace) is None
    before = time.time()
    with suppress(KeyboardInterrupt), Heartbeat(workspace, seconds=0.01):
        _wait_for(lambda: read_heartbeat(workspace) is not None)
        first = read_heartbeat(workspace)
        assert first is not None
        assert before <= first.time <= time.time()
        _wait_for(lambda: (beat := read_heartbeat(workspace)) is not None and beat.time > first.time)
        assert not first.ended
        raise KeyboardInterrupt
    last = read_heartbeat(workspace)
    assert last is not None
    assert last.ended


def test_a_storage_that_fails_ends_no_run(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "run"))
    (tmp_path / "run").write_text("a file where the folder should be")
    with Heartbeat(workspace, seconds=0.01):
        time.sleep(0.05)


@pytest.mark.parametrize("failure", [OSError("no answer"), ResourceError("No space left on device")])
def test_a_storage_that_fails_for_a_moment_ends_no_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    workspace, write, left = Workspace(str(tmp_path / "run")), Folder.write_bytes, [failure, failure]

    def fails_twice(folder: Folder, name: str, content: bytes) -> str:
        if left:
            raise left.pop()
        return write(folder, name, content)

    monkeypatch.setattr(Folder, "write_bytes", fails_twice)
    with Heartbeat(workspace, seconds=0.01):
        _wait_for(lambda: read_heartbeat(workspace) is not None)
    assert not left
    last = read_heartbeat(workspace)
    assert last is not None
    assert last.ended
