"""The items' training interactions, as `prepare` counted them."""

from __future__ import annotations

import numpy as np

from alphafuse.workspace import Workspace

FILE = "popularity.parquet"


def load_popularity(workspace: Workspace) -> np.ndarray:
    """Training interactions of every item, by item index: int64 [items].

    Raises:
        WorkspaceError: `prepare` has not finished, or the file is damaged.
    """
    artifact = workspace.artifact("popularity")
    artifact.require()
    return artifact.read_table(FILE, ["count"])["count"].to_numpy()
