"""Training samples of hand-made sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.workspaces.sequence_cases import USERS, write_sequences

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.samples import Windowing, training_samples

ADJOINING, OVERLAPPING, LAST = Windowing(3, 3, 3), Windowing(3, 3, 1), Windowing(3, 1, 1)


def _samples(folder: Path, windowing: Windowing) -> list[tuple[list[int], list[int]]]:
    samples = training_samples(write_sequences(folder, USERS, 2).read_all(), windowing)
    histories, targets = samples.arrays(np.arange(len(samples)))
    assert samples.num_targets(np.arange(len(samples))) == (targets >= 0).sum()
    return sorted(zip(histories.tolist(), targets.tolist(), strict=True))


def test_adjoining_windows(tmp_path: Path) -> None:
    assert _samples(tmp_path, ADJOINING) == [
        ([10, 11, -1], [11, 12, -1]),
        ([12, 13, 14], [13, 14, 15]),
        ([20, -1, -1], [21, -1, -1]),
        ([40, 41, -1], [41, 42, -1]),
    ]


def test_the_first_target_of_an_overlapping_window_has_a_history(tmp_path: Path) -> None:
    assert _samples(tmp_path, OVERLAPPING) == [
        ([10, 11, 12], [11, 12, 13]),
        ([11, 12, 13], [-1, -1, 14]),
        ([12, 13, 14], [-1, -1, 15]),
        ([20, -1, -1], [21, -1, -1]),
        ([40, 41, -1], [41, 42, -1]),
    ]


def test_a_first_window_of_what_the_further_ones_leave(tmp_path: Path) -> None:
    assert _samples(tmp_path, Windowing(3, 3, 2))[:2] == [
        ([10, 11, 12], [11, 12, 13]),
        ([12, 13, 14], [-1, 14, 15]),
    ]


def test_last_position_samples(tmp_path: Path) -> None:
    assert _samples(tmp_path, LAST) == [
        ([10, -1, -1], [11, -1, -1]),
        ([10, 11, -1], [-1, 12, -1]),
        ([10, 11, 12], [-1, -1, 13]),
        ([11, 12, 13], [-1, -1, 14]),
        ([12, 13, 14], [-1, -1, 15]),
        ([20, -1, -1], [21, -1, -1]),
        ([40, -1, -1], [41, -1, -1]),
        ([40, 41, -1], [-1, 42, -1]),
    ]


@pytest.mark.parametrize(
    ("windowing", "expected"), [(ADJOINING, [2, 1, 0, 1]), (OVERLAPPING, [3, 1, 0, 1]), (LAST, [5, 1, 0, 2])]
)
def test_samples_are_counted_without_the_items(windowing: Windowing, expected: list[int]) -> None:
    assert windowing.count(np.array([end for _, end in USERS])).tolist() == expected


@pytest.mark.parametrize(("length", "overlap", "new_targets"), [(10, 0.0, 10), (10, 0.5, 5), (3, 0.9, 1), (1, 0.5, 1)])
def test_the_share_of_a_window_that_is_new(length: int, overlap: float, new_targets: int) -> None:
    assert Windowing.of(TrainConfig(overlap=overlap), length) == Windowing(length, length, new_targets)
    assert Windowing.of(TrainConfig(overlap=overlap, positions="last"), length) == Windowing(length, 1, 1)
