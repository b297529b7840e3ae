"""Look-ups of items by hand-written titles or ids, and of names by item index."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.errors import DataError
from alphafuse.serving.exported_items import ExportedItems

TITLES = ["Heat", "Usual Suspects, The", "Suspects", "Alien", "Aliens", "Seven", "Toy Story", "heat", "Seven"]
ITEMS = ExportedItems(pa.table({"item_id": [f"id{i}" for i in range(len(TITLES))], "title": TITLES}))


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
def test_hand_written_histories(written: str, items: list[int]) -> None:
    assert ITEMS.find(written.split(",")) == items


def test_a_long_hand_written_history_costs_its_own_length() -> None:
    """All runs of 2,000 pieces would be 2 million texts of 10,000 characters."""
    tracemalloc.start()
    assert ITEMS.find(["Usual Suspects", "The"] * 1000) == [1] * 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_unknown_titles_get_suggestions() -> None:
    with pytest.raises(DataError, match="title or id 'Alie'; did you mean 'Alien' or 'Aliens'"):
        ITEMS.find(["Heat", "Alie"])
    with pytest.raises(DataError, match="title or id 'Toi Storry'; did you mean 'Toy Story'"):
        ITEMS.find(["Toi Storry"])
    with pytest.raises(DataError, match=r"title or id 'zzz'$"):
        ITEMS.find(["zzz"])


@pytest.mark.parametrize("history", ["", " , ", ",,"])
def test_a_history_without_any_item_is_refused(history: str) -> None:
    with pytest.raises(DataError, match="the history names no item: give titles or ids, oldest first"):
        ITEMS.find(history.split(","))


def test_names_and_indices() -> None:
    assert ITEMS.names(np.array([[8, -1], [0, 8]])).to_pylist() == [
        {"item_index": 0, "item_id": "id0", "title": "Heat"},
        {"item_index": 8, "item_id": "id8", "title": "Seven"},
    ]
    assert ITEMS.indices(pa.array(["id3", None, "none", "id3"])).tolist() == [3, -1, -1, 3]
