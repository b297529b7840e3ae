"""Two tiny workspaces, of which the second continues the first one with another catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_nullspace, tiny_workspace

from alphafuse.config import Config
from alphafuse.data.hashing import hash_ids
from alphafuse.nullspace.decomposition import save_nullspace
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace

REMOVED = 4
"""Number of the parent's items that the other catalog lacks; as many are new there."""


def names_of_the_parent() -> list[str]:
    """Item ids by item index."""
    return _ordered(range(NUM_ITEMS))


def names_of_the_update() -> list[str]:
    return _ordered(range(REMOVED, NUM_ITEMS + REMOVED))


def carried_items() -> np.ndarray:
    """Index in the parent of each item of the update, −1 for new ones: int64 [items]."""
    before = names_of_the_parent()
    return np.array([before.index(name) if name in before else -1 for name in names_of_the_update()])


def parent_workspace(folder: Path) -> Workspace:
    """A tiny workspace with a catalog in the order of the ids' hashes."""
    workspace = tiny_workspace(folder)
    write_names(workspace, names_of_the_parent())
    return workspace


def updated_workspace(folder: Path, config: Config, parent: Path, kind: str = "kept") -> Config:
    """A tiny workspace with the other catalog, whose null space came from the parent's; returns its configuration."""
    workspace = tiny_workspace(folder)
    write_names(workspace, names_of_the_update())
    workspace.artifact("nullspace").clear()
    save_nullspace(tiny_nullspace(), workspace.artifact("nullspace"), {"made by": "hand"}, {"update": {"kind": kind}})
    update = config.update.model_copy(update={"parent": str(parent)})
    return config.model_copy(update={"workspace": str(folder), "update": update})


def write_names(workspace: Workspace, names: list[str]) -> None:
    """Replace the catalog, in shards of 11 items."""
    catalog, inputs = workspace.artifact("catalog"), {"names": names}
    catalog.clear()
    for first in range(0, len(names), 11):
        part = names[first : first + 11]
        index = pa.array(range(first, first + len(part)), pa.int64())
        table = pa.table({"item_index": index, "item_id": part, "text": part, "title": part})
        catalog.write_table(f"part-{first:05d}.parquet", table, fingerprint(inputs), first_row=first, row_group_size=4)
    catalog.commit(inputs)


def _ordered(numbers: range) -> list[str]:
    names = [f"item {number}" for number in numbers]
    return [names[place] for place in np.argsort(hash_ids(pa.array(names)))]
