"""Reads what `prepare` counted: training interactions of each item, and the items held out of training."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from alphafuse.storage.workspace import Workspace

FILE = "popularity.parquet"
HELD_OUT = "held_out"
"""Name of a column that exists only if items are held out of training."""


def load_popularity(workspace: Workspace) -> np.ndarray:
    """Training interactions of every item, by item index: int64 [items].

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    artifact = workspace.artifact("popularity")
    return artifact.read_table(artifact.file(FILE), ["count"])["count"].to_numpy()


def load_held_out(workspace: Workspace) -> np.ndarray:
    """Mask of the items that `data.split.cold_items` holds out of training, by item index: bool [items].

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    artifact = workspace.artifact("popularity")
    file = artifact.file(FILE)

    def read(parquet: pq.ParquetFile) -> np.ndarray:
        if HELD_OUT not in parquet.schema_arrow.names:
            return np.zeros(file.rows, bool)
        return parquet.read([HELD_OUT])[HELD_OUT].to_numpy()

    return artifact.read_parquet(file, read)


def load_trained_items(workspace: Workspace) -> np.ndarray | None:
    """Indices of the items that may be trained on, int64, ascending; None: all items.

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    held_out = load_held_out(workspace)
    return np.flatnonzero(~held_out) if held_out.any() else None
