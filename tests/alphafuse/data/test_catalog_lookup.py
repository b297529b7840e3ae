"""Look-ups of names by item and of items by id, over shards with several row groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.catalog_lookup import find_ids, item_names
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.workspace import Workspace

TITLES = ["Heat", "Usual Suspects, The", "Suspects", "Alien", "Aliens", "Seven", "Toy Story", "heat", "Seven"]


@pytest.fixture
def catalog(tmp_path: Path) -> Artifact:
    artifact = Workspace(str(tmp_path)).artifact("catalog")
    index = np.arange(len(TITLES))
    table = pa.table({"item_index": index, "item_id": [f"id{i}" for i in index], "title": TITLES})
    artifact.write_table("part-0.parquet", table.slice(0, 5), "f", row_group_size=2)
    artifact.write_table("part-1.parquet", table.slice(5), "f", first_row=5, row_group_size=3)
    artifact.commit({})
    return artifact


@pytest.fixture(autouse=True)
def _any_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphafuse.storage.artifact.fingerprint", lambda inputs: "f")


@pytest.mark.parametrize("items", [[], [3], [8, 0, 3, 3, -1], [1, 2, 4, 5, 7], list(range(9))])
def test_names_come_by_ascending_index(catalog: Artifact, items: list[int]) -> None:
    table = item_names(catalog, np.array(items, np.int64))
    wanted = sorted({item for item in items if item >= 0})
    assert table.to_pydict() == {
        "item_index": wanted,
        "item_id": [f"id{item}" for item in wanted],
        "title": [TITLES[item] for item in wanted],
    }


def test_ids_are_found_in_any_shard(catalog: Artifact) -> None:
    assert find_ids(catalog, pa.array(["id7", "id0", "none", "id7"])) == {"id7": 7, "id0": 0}
