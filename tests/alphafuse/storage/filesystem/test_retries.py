"""Requests to storage that fails for a moment are repeated; lasting errors are reported at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.faults import flaky_storage
from support.faults.flaky_storage import FlakyFileSystem

from alphafuse.errors import WorkspaceError
from alphafuse.storage.filesystem import retries
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import iterate_rows, to_column
from alphafuse.storage.workspace import Workspace

INPUTS = {"made by": "hand"}
ROWS = 40
CALLS = 60
"""A number of calls that is larger than any operation below needs."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 1e-4)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An artefact on the flaky storage, which does not fail yet."""
    flaky_storage.fail_at(set())
    workspace = Workspace(f"flaky://{tmp_path}/run")
    table = pa.table({"item_index": np.arange(ROWS), "embedding": to_column(_matrix())})
    workspace.artifact("embeddings").write_table("part-00000.parquet", table, fingerprint(INPUTS), row_group_size=7)
    workspace.artifact("embeddings").commit(INPUTS, rows=ROWS)
    return workspace


def _matrix() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, 3)).astype(np.float32)


def _read_in_blocks(workspace: Workspace) -> None:
    blocks = list(iterate_rows(workspace.artifact("embeddings"), "embedding", 2, ROWS - 1, block_rows=5))
    assert [first for first, _, _ in blocks] == np.cumsum([2, *(len(block) for _, block, _ in blocks[:-1])]).tolist()
    np.testing.assert_array_equal(np.concatenate([block for _, block, _ in blocks]), _matrix()[2 : ROWS - 1])


def _take(workspace: Workspace) -> None:
    artifact = workspace.artifact("embeddings")
    table = artifact.take_rows(artifact.file("part-00000.parquet"), np.array([9, 2]), ["item_index"])
    assert table["item_index"].to_pylist() == [9, 2]


def _write(workspace: Workspace) -> None:
    artifact = workspace.artifact("catalog")
    artifact.write_table("part-00000.parquet", pa.table({"x": [1, 2, 3]}), fingerprint(INPUTS))
    artifact.commit(INPUTS, rows=3)
    assert artifact.read_table(artifact.file("part-00000.parquet"))["x"].to_pylist() == [1, 2, 3]
    assert artifact.folder.names() == [
        "manifest.copy.json",
        "manifest.json",
        "part-00000.parquet",
        "part-00000.parquet.record.json",
    ]


def _clear(workspace: Workspace) -> None:
    workspace.artifact("embeddings").clear()
    assert not workspace.folder.exists("embeddings")


@pytest.mark.parametrize("operate", [_read_in_blocks, _take, _write, _clear])
def test_a_failure_at_any_call_changes_nothing(workspace: Workspace, operate: object) -> None:
    failed = 0
    for call in range(CALLS):
        flaky_storage.fail_at({call})
        operate(workspace)  # type: ignore[operator]
        failed += FlakyFileSystem.failures
        if not FlakyFileSystem.failures:
            break
        if operate is _clear:
            flaky_storage.fail_at(set())
            workspace.artifact("embeddings").write_table("part-0.parquet", pa.table({"x": [1]}), fingerprint(INPUTS))
            workspace.artifact("embeddings").commit(INPUTS)
    assert failed >= 3
    assert not FlakyFileSystem.failures, "there were more calls than were tried"


def test_storage_that_goes_on_failing_is_given_up(workspace: Workspace) -> None:
    flaky_storage.fail_at(set(range(1000)))
    with pytest.raises(OSError, match="was reset by the server"):
        workspace.artifact("embeddings").manifest()
    assert FlakyFileSystem.failures == retries.ATTEMPTS
    flaky_storage.fail_at(set(range(2, 1000)))  # the manifest is still found
    with pytest.raises((WorkspaceError, OSError), match="was reset by the server"):
        workspace.artifact("embeddings").file("part-00000.parquet")


def test_pauses_grow(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.5)
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    flaky_storage.fail_at(set(range(1000)))
    with pytest.raises(OSError, match="was reset"):
        workspace.folder.exists("embeddings")
    assert len(pauses) == retries.ATTEMPTS - 1
    for number, pause in enumerate(pauses):
        assert 0.5 * 2**number <= pause <= 0.5 * 2**number + 0.5


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError("When reading: AWS Error NETWORK_CONNECTION"), True),
        (ConnectionResetError("by peer"), True),
        (TimeoutError("read"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "not yours"), False),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (ValueError("no number"), False),
    ],
)
def test_only_transient_errors_are_tried_again(error: Exception, passes: bool) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        retries.attempts()(fail)
    assert len(calls) == (retries.ATTEMPTS if passes else 1)
