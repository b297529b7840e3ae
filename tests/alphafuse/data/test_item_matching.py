"""Items of one catalog in another, for ranges of items, against a look-up of each id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.workspaces.updated_workspace import write_names

from alphafuse.data.hashing import hash_ids
from alphafuse.data.item_matching import match_items
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.workspace import Workspace


def _catalog(folder: Path, numbers: list[int]) -> tuple[Artifact, list[str]]:
    names = np.array([f"item {number}" for number in numbers])
    ordered = names[np.argsort(hash_ids(pa.array(names)))].tolist()
    workspace = Workspace(str(folder))
    write_names(workspace, ordered)
    return workspace.artifact("catalog"), ordered


@pytest.mark.parametrize("seed", range(3))
def test_every_item_of_a_range_is_found_or_not(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 90, 2)
    numbers = [generator.choice(100, size, replace=False).tolist() for size in sizes]
    (catalog, names), (other, theirs) = (_catalog(tmp_path / str(n), part) for n, part in enumerate(numbers))
    expected = [theirs.index(name) if name in theirs else -1 for name in names]
    assert match_items(catalog, 0, len(names), other).tolist() == expected
    for start in range(0, len(names), 7):
        stop = min(start + 9, len(names))
        assert match_items(catalog, start, stop, other).tolist() == expected[start:stop]
    assert match_items(catalog, 1, 1, other).tolist() == []
