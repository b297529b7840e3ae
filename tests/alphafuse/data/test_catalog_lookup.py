"""Look-ups of names by item and of items by name, over shards with several row groups."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.catalog_lookup import find_ids, find_items, item_names
from alphafuse.errors import DataError
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


@pytest.mark.parametrize(
    ("written", "items"),
    [
        ("Toy Story,Heat", [6, 0]),
        ("usual suspects, the, alien", [1, 3]),  # the longest run that is a title
        ("Usual Suspects,The,Heat", [1, 0]),  # with or without blanks at the commas
        ("id8,Seven", [8, 5]),  # by id; of two items with one title the lower index
        ("Suspects", [2]),
    ],
)
def test_hand_written_histories(catalog: Artifact, written: str, items: list[int]) -> None:
    assert find_items(catalog, written.split(",")) == items


def test_a_long_hand_written_history_costs_its_own_length(catalog: Artifact) -> None:
    """All runs of 2,000 pieces would be 2 million texts of 10,000 characters."""
    tracemalloc.start()
    assert find_items(catalog, ["Usual Suspects", "The"] * 1000) == [1] * 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_unknown_titles_get_suggestions(catalog: Artifact) -> None:
    with pytest.raises(DataError, match="title or id 'Alie'; did you mean 'Alien' or 'Aliens'"):
        find_items(catalog, ["Heat", "Alie"])
    with pytest.raises(DataError, match="title or id 'Toi Storry'; did you mean 'Toy Story'"):
        find_items(catalog, ["Toi Storry"])
    with pytest.raises(DataError, match=r"title or id 'zzz'$"):
        find_items(catalog, ["zzz"])


@pytest.mark.parametrize("history", ["", " , ", ",,"])
def test_a_history_without_any_item_is_refused(catalog: Artifact, history: str) -> None:
    with pytest.raises(DataError, match="the history names no item: give titles or ids, oldest first"):
        find_items(catalog, history.split(","))
