"""Cuts and protocols on hand-made users."""

from __future__ import annotations

import numpy as np
import pytest

from alphafuse.data.preparation.splits import (
    cold_items,
    cuts_by_ratios,
    held_out_positions,
    num_targets,
    split_by_file,
    split_leave_one_out,
    split_temporal,
    split_users,
)


@pytest.mark.parametrize(
    ("values", "ratios", "cuts"),
    [
        (range(10), (8, 1, 1), (8, 9)),
        (range(10), (0.5, 0.25, 0.25), (5, 8)),
        (range(10), (1, 0, 0), (None, None)),
        (range(10), (8, 2, 0), (8, None)),
        (range(10), (8, 0, 2), (8, 8)),
        ([5, 5, 5, 5, 9], (1, 1, 1), (5, 5)),
        ([3], (8, 1, 1), (None, None)),
        ([], (8, 1, 1), (None, None)),
    ],
)
def test_cuts(values: list[float], ratios: tuple[float, float, float], cuts: tuple[float | None, float | None]) -> None:
    shuffled = np.random.default_rng(0).permutation(np.array(list(values), float))
    assert cuts_by_ratios(shuffled, ratios) == cuts


def test_users_by_their_keys() -> None:
    keys, lengths = np.array([10, 20, 30, 40], np.uint64), np.array([3, 4, 5, 6])
    train_end, validation_end = split_users(keys, lengths, (30, 40))
    assert (train_end.tolist(), validation_end.tolist()) == ([3, 4, 0, 0], [3, 4, 5, 0])


def test_leave_one_out() -> None:
    train_end, validation_end = split_leave_one_out(np.array([1, 2, 3, 10]))
    assert (train_end.tolist(), validation_end.tolist()) == ([1, 2, 1, 8], [1, 2, 2, 9])


def test_temporal_without_a_later_part() -> None:
    times, lengths = np.array([1.0, 5, 2, 9, np.nan, np.nan]), np.array([2, 2, 2])
    train_end, validation_end = split_temporal(times, lengths, (5.0, 9.0))
    assert (train_end.tolist(), validation_end.tolist()) == ([1, 1, 2], [2, 1, 2])
    train_end, validation_end = split_temporal(times, lengths, (5.0, None))
    assert (train_end.tolist(), validation_end.tolist()) == ([1, 1, 2], [2, 2, 2])


def test_by_file() -> None:
    train_end, validation_end = split_by_file(np.array([0, 1, 2]), np.array([3, 4, 5]))
    assert (train_end.tolist(), validation_end.tolist()) == ([3, 0, 0], [3, 4, 0])


def test_targets_start_at_the_second_position() -> None:
    lengths = np.array([4, 4, 4, 4, 1])
    counts = num_targets(lengths, np.array([4, 0, 0, 2, 1]), np.array([4, 4, 0, 3, 1]))
    assert {name: count.tolist() for name, count in counts.items()} == {
        "train": [3, 0, 0, 1, 0],
        "validation": [0, 3, 0, 1, 0],
        "test": [0, 0, 3, 1, 0],
    }


def test_cold_items_are_those_with_the_smallest_keys() -> None:
    keys = np.array([50, 10, 40, 20, 30], np.uint64)
    assert cold_items(keys, 0.4).tolist() == [False, True, False, True, False]
    assert not cold_items(keys, 0.01).any()


def test_cold_items_are_held_out_of_what_trains_alone() -> None:
    items, cold = np.array([0, 1, 1, 2, 1, 0, 2, 1]), np.array([False, True, False])
    positions, counts = held_out_positions(items, np.array([4, 0, 4]), np.array([4, 0, 3]), cold)
    assert (positions.tolist(), counts.tolist()) == ([1, 2, 0], [2, 0, 1])
    targets = num_targets(np.array([4, 0, 4]), np.array([4, 0, 3]), np.array([4, 0, 4]), counts)
    assert {name: count.tolist() for name, count in targets.items()} == {
        "train": [1, 0, 1],
        "validation": [0, 0, 1],
        "test": [0, 0, 0],
    }
