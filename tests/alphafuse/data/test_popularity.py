"""Reads parts of the file of popularities: the held-out items of a range, and their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data import popularity
from alphafuse.data.popularity import FILE, count_trained_items, load_held_out, load_trained_items
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace

NUM_ITEMS = 25
HELD_OUT = np.isin(np.arange(NUM_ITEMS), [0, 9, 10, 24])


def _workspace(folder: Path, held_out: np.ndarray | None) -> Workspace:
    """Popularities in row groups of ten items."""
    workspace = Workspace(str(folder))
    artifact, table = workspace.artifact("popularity"), pa.table({"item_index": range(NUM_ITEMS)})
    if held_out is not None:
        table = table.append_column("held_out", pa.array(held_out))
    artifact.write_table(FILE, table, fingerprint({}), row_group_size=10)
    artifact.commit({})
    return workspace


@pytest.mark.parametrize("bounds", [(0, 25), (9, 11), (10, 20), (19, 25), (5, 5), (25, 25)])
def test_held_out_items_of_a_range(tmp_path: Path, bounds: tuple[int, int]) -> None:
    read = load_held_out(_workspace(tmp_path, HELD_OUT), *bounds)
    assert read.dtype == bool
    assert read.tolist() == HELD_OUT[slice(*bounds)].tolist()


def test_held_out_items_where_there_are_none(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, None)
    assert load_held_out(workspace, 3, 7).tolist() == [False] * 4
    assert load_held_out(workspace).tolist() == [False] * NUM_ITEMS
    assert load_trained_items(workspace) is None
    assert count_trained_items(workspace) == NUM_ITEMS


def test_trained_items_are_counted_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popularity, "BLOCK_ROWS", 7)
    workspace, expected = _workspace(tmp_path, HELD_OUT), np.flatnonzero(~HELD_OUT)
    assert count_trained_items(workspace) == len(expected)
    trained = load_trained_items(workspace)
    assert trained is not None
    assert trained.tolist() == expected.tolist()
