"""Training samples and their order, with hand-made sequences."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.batches import BatchOrder, training_samples
from alphafuse.data.negatives import shared_negatives, uniform_negatives
from alphafuse.data.sequences import Sequences


def _sequences(*users: tuple[list[int], int]) -> Sequences:
    """Users as (items, train_end)."""
    lengths = [len(items) for items, _ in users]
    ends = np.array([end for _, end in users])
    return Sequences(
        items=np.concatenate([items for items, _ in users]),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        train_end=ends,
        validation_end=ends,
        user_ids=pa.chunked_array([[f"user {number}" for number in range(len(users))]]),
    )


SEQUENCES = _sequences(([10, 11, 12, 13, 14, 15], 6), ([20, 21], 2), ([30, 31, 32], 0), ([40, 41, 42, 43], 3))


def test_all_positions_windows() -> None:
    samples = training_samples(SEQUENCES, 3, "all")
    histories, targets = samples.arrays(np.arange(len(samples)))
    rows = {(tuple(h), tuple(t)) for h, t in zip(histories.tolist(), targets.tolist(), strict=True)}
    assert rows == {
        ((12, 13, 14), (13, 14, 15)),
        ((10, 11, -1), (11, 12, -1)),
        ((20, -1, -1), (21, -1, -1)),
        ((40, 41, -1), (41, 42, -1)),
    }


def test_last_position_samples() -> None:
    samples = training_samples(SEQUENCES, 3, "last")
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


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (3, 1), (1, 3), (2, 2)])
def test_steps_hold_the_same_samples_however_they_are_divided(
    positions: str, world_size: int, accumulation: int
) -> None:
    samples = training_samples(SEQUENCES, 2, positions)
    reference = list(BatchOrder(samples, 3, 1, seed=5).epoch(1, 0, 0, 1))
    order = BatchOrder(samples, 3, accumulation, seed=5)
    parts = [list(order.epoch(1, 0, rank, world_size)) for rank in range(world_size)]
    assert {len(part) for part in parts} == {len(reference)} == {order.steps_per_epoch}
    for step, (whole,) in enumerate(reference):
        divided = [parts[rank][step][micro] for micro in range(accumulation) for rank in range(world_size)]
        assert np.array_equal(np.concatenate([batch.histories for batch in divided]), whole.histories)
        assert np.array_equal(np.concatenate([batch.targets for batch in divided]), whole.targets)
        assert [batch.first_sample for batch in divided] == list(
            np.cumsum([0] + [len(batch.histories) for batch in divided])[:-1]
        )
        for batch in divided:
            assert batch.targets_per_part * world_size * accumulation == pytest.approx((whole.targets >= 0).sum())


def test_every_sample_once_an_epoch_in_another_order_each_time() -> None:
    order = BatchOrder(training_samples(SEQUENCES, 1, "last"), 3, 1, seed=5)

    def targets(epoch: int, first_step: int = 0) -> list[int]:
        return [int(t) for (batch,) in order.epoch(epoch, first_step, 0, 1) for t in batch.targets.ravel()]

    assert sorted(targets(0)) == sorted(targets(1)) == [11, 12, 13, 14, 15, 21, 41, 42]
    assert targets(0) == targets(0) != targets(1)
    assert targets(0, first_step=1) == targets(0)[3:]


def test_uniform_negatives_are_uniform_over_all_items_but_the_positive() -> None:
    positives = np.repeat([0, 2, 4], 4000)
    negatives = uniform_negatives(1, 7, 0, positives, 5, num_items=5)
    for positive in (0, 2, 4):
        counts = np.bincount(negatives[positives == positive].ravel(), minlength=5)
        assert counts[positive] == 0
        assert np.delete(counts, positive) == pytest.approx(5000, abs=5 * 5000**0.5)


def test_negatives_of_a_target_do_not_depend_on_who_draws_them() -> None:
    positives = np.arange(10)
    whole = uniform_negatives(3, 11, 0, positives, 6, num_items=50)
    assert np.array_equal(uniform_negatives(3, 11, 4, positives[4:9], 6, num_items=50), whole[4:9])
    assert not np.array_equal(uniform_negatives(3, 12, 0, positives, 6, num_items=50), whole)
    shared = shared_negatives(3, 11, 1000, 50)
    assert shared.min() >= 0
    assert shared.max() < 50
    assert len(np.unique(shared)) == 50
