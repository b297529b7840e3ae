"""The order of samples in an epoch, with buffers much smaller than the log."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from support.workspaces.sequence_cases import random_users, train_targets, write_sequences

from alphafuse.data.sampling import shuffle
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.data.sequence_store import SequenceStore

USERS = random_users(60)
ALL, LAST = Windowing(3, 3, 2), Windowing(3, 1, 1)


@pytest.fixture(params=["small logs read as a whole", "divided"], autouse=True)
def _divided(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "divided":
        monkeypatch.setattr(shuffle, "LANE_SAMPLES", 0)


def _targets(stream: SampleStream, epoch: int, first_sample: int = 0) -> list[list[int]]:
    """Targets of each sample of an epoch, in the order of the epoch, of one rank."""
    result = []
    for buffer in stream.buffers(epoch, first_sample, 0, 1):
        for place in range(max(first_sample, buffer.first), buffer.stop):
            _, (targets,) = buffer.samples.arrays(buffer.between(place, place + 1)[0])
            result.append(targets[targets >= 0].tolist())
    return result


def _stream(folder: Path, buffer_users: int, windowing: Windowing = ALL, seed: int = 5) -> SampleStream:
    return SampleStream(write_sequences(folder, USERS, 4, 20), windowing, buffer_users, seed)


@pytest.mark.parametrize("windowing", [ALL, LAST], ids=["all", "last"])
@pytest.mark.parametrize("buffer_users", [1, 10, 1000])
def test_every_target_once_an_epoch(tmp_path: Path, buffer_users: int, windowing: Windowing) -> None:
    stream = _stream(tmp_path, buffer_users, windowing)
    for epoch in range(2):
        samples = _targets(stream, epoch)
        assert len(samples) == len(stream)
        assert sorted(target for sample in samples for target in sample) == train_targets(USERS)


@pytest.mark.parametrize("buffer_users", [10, 1000])
def test_the_order_depends_on_seed_and_epoch_alone(tmp_path: Path, buffer_users: int) -> None:
    stream, same = (_stream(tmp_path / name, buffer_users) for name in ("a", "b"))
    other_seed = _stream(tmp_path / "c", buffer_users, seed=6)
    assert _targets(stream, 0) == _targets(stream, 0) == _targets(same, 0)
    assert len({str(order) for order in (_targets(stream, 0), _targets(stream, 1), _targets(other_seed, 0))}) == 3


@pytest.mark.parametrize("buffer_users", [1, 10, 1000])
def test_an_epoch_can_be_entered_at_any_sample(tmp_path: Path, buffer_users: int) -> None:
    stream = _stream(tmp_path, buffer_users)
    whole = _targets(stream, 3)
    for first in [*range(0, len(stream), 7), len(stream) - 1, len(stream)]:
        assert _targets(stream, 3, first) == whole[first:]


def test_samples_of_distant_users_meet(tmp_path: Path) -> None:
    """Buffers take blocks from all over the log: on average, two neighbours are a third of the log apart."""
    order = [sample[0] for sample in _targets(_stream(tmp_path, 20), 0)]
    largest = max(train_targets(USERS))
    assert np.abs(np.diff(order)).mean() == pytest.approx(largest / 3, rel=0.25)


def test_no_more_than_two_buffers_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _stream(tmp_path, 10)
    read, read_users = threading.Event(), []

    def count(store: SequenceStore, blocks: list[int]) -> object:
        read_users.append(int(store.users[blocks].sum()))
        read.set()
        return original(store, blocks)

    original = SequenceStore.read
    monkeypatch.setattr(SequenceStore, "read", count)
    buffers = stream.buffers(0, 0, 0, 1)
    next(buffers)
    assert read.wait(10)
    next(buffers)
    buffers.close()  # type: ignore[attr-defined]  # a generator; waits for the reading under way
    assert 2 <= len(read_users) <= 3
    assert max(read_users) <= 10


def test_buffers_before_the_first_sample_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, read = _stream(tmp_path, 4), []
    original = SequenceStore.read
    monkeypatch.setattr(SequenceStore, "read", lambda store, blocks: (read.append(blocks), original(store, blocks))[1])
    assert len(_targets(stream, 0, len(stream) - 1)) == 1
    assert len(read) == 1


def test_a_log_that_fits_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, read = _stream(tmp_path, 1000), []
    original = SequenceStore.read
    monkeypatch.setattr(SequenceStore, "read", lambda store, blocks: (read.append(blocks), original(store, blocks))[1])
    for epoch in range(3):
        _targets(stream, epoch)
    assert len(read) == 1


@pytest.mark.parametrize("buffer_users", [10, 1000])
@pytest.mark.parametrize("world_size", [2, 3, 70])
def test_ranks_divide_the_samples_of_each_buffer(tmp_path: Path, buffer_users: int, world_size: int) -> None:
    """Each rank comes to the samples of its lanes, and to no other: together to every one once."""
    stream, found = _stream(tmp_path, buffer_users), []
    for rank in range(world_size):
        for buffer in stream.buffers(2, 0, rank, world_size):
            chosen, counts = buffer.between(buffer.first, buffer.stop)
            assert len(chosen) == counts[buffer.lanes].sum()
            assert abs(len(chosen) - (buffer.stop - buffer.first) / world_size) <= 1
            _, targets = buffer.samples.arrays(chosen)
            found += targets[targets >= 0].tolist()
    assert sorted(found) == train_targets(USERS)
