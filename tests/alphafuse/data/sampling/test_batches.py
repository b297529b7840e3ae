"""Batches and the parts of the ranks, with hand-made sequences; and negatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.workspaces.sequence_cases import USERS, random_users, train_targets, write_sequences

from alphafuse.data.sampling import shuffle
from alphafuse.data.sampling.batches import BatchOrder
from alphafuse.data.sampling.negative_draws import shared_negatives, uniform_negatives
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream


@pytest.fixture(params=["small logs read as a whole", "divided"])
def _divided(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "divided":
        monkeypatch.setattr(shuffle, "LANE_SAMPLES", 0)


@pytest.mark.usefixtures("_divided")
@pytest.mark.parametrize("windowing", [Windowing(2, 2, 1), Windowing(2, 1, 1)], ids=["all", "last"])
@pytest.mark.parametrize("buffer_users", [2, 100])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_steps_hold_the_same_samples_however_they_are_divided(
    tmp_path: Path, windowing: Windowing, buffer_users: int, accumulation: int
) -> None:
    """For 1 to 4 ranks, and where an epoch is entered with another number of them. The micro-batches of one rank are
    those of all ranks, rank after rank. Each step holds the next samples of the epoch, however it is accumulated."""
    store = write_sequences(tmp_path, random_users(9), users_per_block=2)
    samples = SampleStream(store, windowing, buffer_users, seed=5)
    order = BatchOrder(samples, 3, accumulation)
    reference = list(order.epoch(1, 0, 0, 1))
    assert len(reference) == order.steps_per_epoch
    for (whole,), step in zip(BatchOrder(samples, 3, 1).epoch(1, 0, 0, 1), reference, strict=True):
        assert sorted(map(tuple, whole.targets)) == sorted(tuple(row) for micro in step for row in micro.targets)
    for world_size, first_step in [(2, 0), (3, 0), (4, 0), (2, len(reference)), (3, 1), (4, len(reference) - 1)]:
        parts = [list(order.epoch(1, first_step, rank, world_size)) for rank in range(world_size)]
        assert {len(part) for part in parts} == {len(reference) - first_step}
        for number, step in enumerate(reference[first_step:]):
            place = 0
            for micro, whole in enumerate(step):
                divided = [part[number][micro] for part in parts]
                assert np.array_equal(np.concatenate([batch.histories for batch in divided]), whole.histories)
                assert np.array_equal(np.concatenate([batch.targets for batch in divided]), whole.targets)
                for batch in divided:
                    assert batch.first_sample == place
                    place += len(batch.histories)


@pytest.mark.usefixtures("_divided")
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
    whole = steps(0)
    for first_step in range(0, order.steps_per_epoch, 3):
        assert steps(0, first_step) == whole[first_step:]
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
