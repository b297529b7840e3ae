"""The interactions that RecTools is given of a workspace, and the ranks of targets in its lists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from alphafuse.data.sequences import Sequences
from benchmarks.rectools import K, known_interactions, ranks_in_lists

SEQUENCES = Sequences(
    items=np.array([4, 7, 2, 9, 1, 3, 5]),
    starts=np.array([0, 4, 7]),
    train_end=np.array([2, 1]),
    validation_end=np.array([3, 2]),
    user_ids=pa.chunked_array([["a", "b"]]),
)


def test_interactions_that_test_are_not_given() -> None:
    found = known_interactions(SEQUENCES)
    assert found["user_id"].tolist() == [0, 0, 0, 1, 1]
    assert found["item_id"].tolist() == [4, 7, 2, 1, 3]
    assert all(times.is_monotonic_increasing and times.is_unique for _, times in found.groupby("user_id")["datetime"])


def test_ranks_are_those_of_the_lists() -> None:
    rows = [(0, 5, 1), (0, 9, 2), (0, 3, 3), (1, 9, 1), (1, 4, 2)]
    lists = pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])
    assert ranks_in_lists(lists, np.array([9, 5])).tolist() == [2, K + 1]
