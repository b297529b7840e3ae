"""Reads what `prepare` counted: training interactions of each item, all and recent, and the items held out of them."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from alphafuse.storage.parquet_files import read_range
from alphafuse.storage.workspace import Workspace

FILE = "popularity.parquet"
HELD_OUT = "held_out"
"""Name of a column that exists only if items are held out of training."""
RECENT = "recent"
"""Name of a column that exists only if there are recent training interactions."""
BLOCK_ROWS = 2**20
"""Items that are counted at a time."""


def load_popularity(workspace: Workspace) -> np.ndarray:
    """Training interactions of every item, by item index: int64 [items].

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    artifact = workspace.artifact("popularity")
    return artifact.read_table(artifact.file(FILE), ["count"])["count"].to_numpy()


def load_recent_popularity(workspace: Workspace) -> np.ndarray | None:
    """Recent training interactions of every item (`alphafuse.data.preparation.recency`), by item index: int64 [items];
    None where nothing is known of the times.

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    return _optional_column(workspace, RECENT)


def load_held_out(workspace: Workspace, first: int = 0, stop: int | None = None) -> np.ndarray:
    """Mask of the items that `data.split.cold_items` holds out of training: bool [stop − first], those of the items
    [first, stop). Only their part of the file is read.

    Args:
        stop: None: the end of the catalog.

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    stop = workspace.artifact("popularity").file(FILE).rows if stop is None else stop
    held_out = _optional_column(workspace, HELD_OUT, first, stop)
    return np.zeros(stop - first, bool) if held_out is None else held_out


def count_trained_items(workspace: Workspace) -> int:
    """Number of the items that may be trained on; reads some of them at a time.

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    rows = workspace.artifact("popularity").file(FILE).rows
    blocks = range(0, rows, BLOCK_ROWS)
    return sum(int((~load_held_out(workspace, first, min(first + BLOCK_ROWS, rows))).sum()) for first in blocks)


def load_trained_items(workspace: Workspace) -> np.ndarray | None:
    """Indices of the items that may be trained on, int64, ascending; None: all items.

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    held_out = _optional_column(workspace, HELD_OUT)
    return np.flatnonzero(~held_out) if held_out is not None and held_out.any() else None


def _optional_column(workspace: Workspace, name: str, first: int = 0, stop: int | None = None) -> np.ndarray | None:
    """The rows [first, stop) of a column of the file; None where the file does not have the column."""
    artifact = workspace.artifact("popularity")

    def read(parquet: pq.ParquetFile) -> np.ndarray | None:
        if name not in parquet.schema_arrow.names:
            return None
        end = parquet.metadata.num_rows if stop is None else stop
        return read_range(parquet, name, first, end).to_numpy()

    return artifact.read_parquet(artifact.file(FILE), read)
