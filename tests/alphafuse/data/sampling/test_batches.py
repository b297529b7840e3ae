"""Batches and the parts of the ranks, with hand-made sequences; and negatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.workspaces.sequence_cases import USERS, random_users, train_targets, write_sequences

from alphafuse.data.sampling.batches import BatchOrder
from alphafuse.data.sampling.negative_draws import shared_negatives, uniform_negatives
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream


@pytest.mark.parametrize("windowing", [Windowing(2, 2, 1), Windowing(2, 1, 1)], ids=["all", "last"])
@pytest.mark.parametrize("buffer_users", [2, 100])
@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (3, 1), (1, 3), (2, 2)])
def test_steps_hold_the_same_samples_however_they_are_divided(
    tmp_path: Path, windowing: Windowing, buffer_users: int, world_size: int, accumulation: int
) -> None:
    store = write_sequences(tmp_path, random_users(9), users_per_block=2)
    samples = SampleStream(store, windowing, buffer_users, seed=5)
    reference = list(BatchOrder(samples, 3, 1).epoch(1, 0, 0, 1))
    order = BatchOrder(samples, 3, accumulation)
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


@pytest.mark.parametrize("buffer_users", [2, 100])
def test_every_sample_once_an_epoch_in_another_order_each_time(tmp_path: Path, buffer_users: int) -> None:
    users = random_users(30)
    store = write_sequences(tmp_path, users, users_per_block=2)
    order = BatchOrder(SampleStream(store, Windowing(1, 1, 1), buffer_users, seed=5), 3, 1)

    def steps(epoch: int, first_step: int = 0) -> list[list[int]]:
        return [batch.targets.ravel().tolist() for (batch,) in order.epoch(epoch, first_step, 0, 1)]

    for epoch in range(2):
        assert sorted(target for step in steps(epoch) for target in step) == train_targets(users)
    assert steps(0) == steps(0) != steps(1)
    for first_step in range(order.steps_per_epoch):
        assert steps(0, first_step) == steps(0)[first_step:]
    assert {len(step) for step in steps(0)[:-1]} == {3}


def test_a_log_smaller_than_a_batch(tmp_path: Path) -> None:
    order = BatchOrder(SampleStream(write_sequences(tmp_path, USERS, 1), Windowing(3, 3, 3), 2, seed=5), 64, 1)
    ((batch,),) = order.epoch(0, 0, 0, 1)
    assert sorted(batch.targets[batch.targets >= 0].tolist()) == train_targets(USERS)


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
