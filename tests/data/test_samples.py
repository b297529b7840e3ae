"""Training samples of hand-made sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sequence_cases import USERS, write_sequences

from alphafuse.data.samples import Positions, samples_per_user, training_samples


def test_all_positions_windows(tmp_path: Path) -> None:
    samples = training_samples(write_sequences(tmp_path, USERS, 2).read_all(), 3, "all")
    histories, targets = samples.arrays(np.arange(len(samples)))
    rows = {(tuple(h), tuple(t)) for h, t in zip(histories.tolist(), targets.tolist(), strict=True)}
    assert rows == {
        ((12, 13, 14), (13, 14, 15)),
        ((10, 11, -1), (11, 12, -1)),
        ((20, -1, -1), (21, -1, -1)),
        ((40, 41, -1), (41, 42, -1)),
    }


def test_last_position_samples(tmp_path: Path) -> None:
    samples = training_samples(write_sequences(tmp_path, USERS, 2).read_all(), 3, "last")
    histories, targets = samples.arrays(np.arange(len(samples)))
    rows = {(tuple(h), tuple(t)) for h, t in zip(histories.tolist(), targets.tolist(), strict=True)}
    assert rows == {
        ((10, -1, -1), (11, -1, -1)),
        ((10, 11, -1), (-1, 12, -1)),
        ((10, 11, 12), (-1, -1, 13)),
        ((11, 12, 13), (-1, -1, 14)),
        ((12, 13, 14), (-1, -1, 15)),
        ((20, -1, -1), (21, -1, -1)),
        ((40, -1, -1), (41, -1, -1)),
        ((40, 41, -1), (-1, 42, -1)),
    }


@pytest.mark.parametrize(("positions", "expected"), [("all", [2, 1, 0, 1]), ("last", [5, 1, 0, 2])])
def test_samples_are_counted_without_the_items(positions: Positions, expected: list[int]) -> None:
    assert samples_per_user(np.array([end for _, end in USERS]), 3, positions).tolist() == expected
