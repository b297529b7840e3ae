"""The order of the lanes against a sorted list of all samples and their times."""

from __future__ import annotations

import numpy as np
import pytest

from alphafuse.data.sampling.lanes import LANES, LaneOrder, lanes_of

SIZES = [1, 5, LANES - 1, LANES, LANES + 1, 7_000, 100_003]


@pytest.mark.parametrize("shift", [0.0, 0.37])
@pytest.mark.parametrize("samples", SIZES)
def test_cursors_are_those_of_the_sorted_times(samples: int, shift: float) -> None:
    order, coming = LaneOrder(samples, shift), []
    for lane, size in enumerate(np.diff(order.starts).tolist()):
        offset = (lane * (5**0.5 - 1) / 2 + shift) % 1
        coming += [((number + offset) / size, lane) for number in range(size)]
    lanes = np.array([lane for _, lane in sorted(coming)])
    for place in np.unique(np.linspace(0, samples, 30).astype(int)).tolist():
        assert np.array_equal(order.cursors(place), np.bincount(lanes[:place], minlength=LANES))
    assert order.cursors(samples).sum() == samples == order.starts[-1]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 8, 64, 256])
def test_ranks_have_all_lanes_and_alike_parts_of_every_step(world_size: int) -> None:
    lanes = [lanes_of(rank, world_size) for rank in range(world_size)]
    assert [lane for own in lanes for lane in range(own.start, own.stop)] == list(range(LANES))
    batch, order = 64 * world_size, LaneOrder(300_000, 0.6)
    for first in range(0, 300_000 - batch, 20_011):
        counts = order.cursors(first + batch) - order.cursors(first)
        assert max(counts[own].sum() for own in lanes) <= 1.2 * 64
