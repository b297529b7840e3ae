"""Reads what `prepare` counted: training interactions of each item, all and recent, and the items held out of them."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from alphafuse.storage.workspace import Workspace

FILE = "popularity.parquet"
HELD_OUT = "held_out"
"""Name of a column that exists only if items are held out of training."""
RECENT = "recent"
"""Name of a column that exists only if there are recent training interactions."""


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


def load_held_out(workspace: Workspace) -> np.ndarray:
    """Mask of the items that `data.split.cold_items` holds out of training, by item index: bool [items].

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    held_out = _optional_column(workspace, HELD_OUT)
    return np.zeros(workspace.artifact("popularity").file(FILE).rows, bool) if held_out is None else held_out


def load_trained_items(workspace: Workspace) -> np.ndarray | None:
    """Indices of the items that may be trained on, int64, ascending; None: all items.

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    held_out = load_held_out(workspace)
    return np.flatnonzero(~held_out) if held_out.any() else None


def _optional_column(workspace: Workspace, name: str) -> np.ndarray | None:
    """A column of the file, [items]; None where the file does not have it."""
    artifact = workspace.artifact("popularity")

    def read(parquet: pq.ParquetFile) -> np.ndarray | None:
        return parquet.read([name])[name].to_numpy() if name in parquet.schema_arrow.names else None

    return artifact.read_parquet(artifact.file(FILE), read)
