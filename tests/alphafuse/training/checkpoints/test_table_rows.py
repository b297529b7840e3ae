"""Table rows in files: any ranges are read from any ranges, a block at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alphafuse.errors import WorkspaceError
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints import table_rows
from alphafuse.training.checkpoints.table_rows import read_table_rows, write_table_rows

ROWS, DIM = 23, 3
BLOCK = 4  # rows


class _LargestTensor(TorchDispatchMode):
    """Keeps the size of the largest memory that operations make in its context."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {tensor.untyped_storage().data_ptr() for tensor in args if isinstance(tensor, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in known:
            self.bytes = max(self.bytes, result.untyped_storage().nbytes())
        return result


@pytest.fixture
def records() -> torch.Tensor:
    """Rows and a moment side by side, as in the item table."""
    return torch.arange(ROWS * 2 * DIM, dtype=torch.float32).view(ROWS, 2 * DIM)


@pytest.fixture
def artifact(tmp_path: Path, records: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """Written by two ranks, the second with more rows."""
    monkeypatch.setattr(table_rows, "FILE_BYTES", BLOCK * 2 * DIM * 4)
    artifact = Workspace(str(tmp_path)).artifact("model")
    for start, stop in ((0, 9), (9, ROWS)):
        write_table_rows(artifact, fingerprint({}), start, _tensors(records[start:stop]))
    artifact.commit({}, rows=ROWS)
    return artifact


def _tensors(records: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"rows": records[:, :DIM], "first_moment": records[:, DIM:]}


def test_a_file_holds_a_block(artifact: Artifact) -> None:
    assert [(file.first_row, file.rows) for file in artifact.require().files] == [
        (0, 4), (4, 4), (8, 1), (9, 4), (13, 4), (17, 4), (21, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(("start", "stop"), [(0, ROWS), (0, 1), (3, 10), (8, 9), (22, 23), (5, 5)])
def test_any_range_is_read(artifact: Artifact, records: torch.Tensor, start: int, stop: int) -> None:
    loaded = torch.full((stop - start, 2 * DIM), torch.nan)
    read_table_rows(artifact, start, _tensors(loaded))
    assert torch.equal(loaded, records[start:stop])
    only = torch.full((stop - start, DIM), torch.nan)
    read_table_rows(artifact, start, {"first_moment": only})
    assert torch.equal(only, records[start:stop, DIM:])


def test_no_copy_is_larger_than_a_file(artifact: Artifact, records: torch.Tensor, tmp_path: Path) -> None:
    loaded = torch.empty_like(records)
    with _LargestTensor() as largest:
        write_table_rows(Workspace(str(tmp_path / "other")).artifact("model"), "", 0, _tensors(records))
        read_table_rows(artifact, 0, _tensors(loaded))
    assert 0 < largest.bytes <= max(path.stat().st_size for path in tmp_path.glob("other/model/*.safetensors"))
    assert torch.equal(loaded, records)


def test_rows_without_columns_are_one_file(tmp_path: Path) -> None:
    artifact = Workspace(str(tmp_path)).artifact("model")
    write_table_rows(artifact, fingerprint({}), 0, {"rows": torch.empty(ROWS, 0)})
    artifact.commit({}, rows=ROWS)
    read_table_rows(artifact, 0, {"rows": torch.empty(ROWS, 0)})
    assert len(artifact.require().files) == 1


def test_missing_rows_and_names_are_told(artifact: Artifact) -> None:
    with pytest.raises(WorkspaceError, match=r"it names 23 of the 24 rows \[0, 24\)"):
        read_table_rows(artifact, 0, {"rows": torch.empty(ROWS + 1, DIM)})
    with pytest.raises(WorkspaceError, match=r"table-000000000000\.safetensors.*'second_moment'"):
        read_table_rows(artifact, 0, {"second_moment": torch.empty(ROWS, DIM)})
