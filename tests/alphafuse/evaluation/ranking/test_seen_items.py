"""Items that users have seen, against sets of the items before each position; and their size for one long log."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.sequences import Sequences
from alphafuse.evaluation.ranking.seen_items import SeenItems


def _sequences(histories: list[list[int]]) -> Sequences:
    starts = np.cumsum([0, *map(len, histories)])
    none = np.zeros(len(histories), np.int64)
    names = pa.chunked_array([pa.array([f"user {number}" for number in range(len(histories))])])
    return Sequences(np.concatenate(histories).astype(np.int64), starts, none, none, names)


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_the_set_of_items_before_each_position(seed: int) -> None:
    generator = np.random.default_rng(seed)
    histories = [generator.integers(0, 6, generator.integers(0, 12)).tolist() for _ in range(8)]
    asked = [(user, position) for user in (0, 2, 3, 7) for position in range(len(histories[user]) + 1)]
    asked = [each for each in asked if generator.random() < 0.6]
    users, positions = np.array(asked, np.int64).reshape(-1, 2).T
    found: list[set[int]] = [set() for _ in asked]
    for item, first, stop in SeenItems(_sequences(histories), users).before(users, positions).T.tolist():
        for query in range(first, stop):
            assert item not in found[query], "each item once"
            found[query].add(item)
    assert found == [set(histories[user][:position]) for user, position in asked]


def test_a_long_log_of_few_items_is_small() -> None:
    """A user with 200,000 interactions, 40 items: only these count, whatever the number of queries."""
    length = 200_000
    sequences = _sequences([np.random.default_rng(0).integers(0, 40, length).tolist(), [1, 2]])
    users, positions = np.zeros(512, np.int64), np.arange(length - 512, length)
    seen = SeenItems(sequences, users)
    tracemalloc.start()
    excluded = seen.before(users, positions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert excluded.shape == (3, 40)
    assert peak < 100_000


def test_no_queries() -> None:
    none = np.zeros(0, np.int64)
    assert SeenItems(_sequences([[1], [2]]), none).before(none, none).shape == (3, 0)
