"""Reading users in blocks, against the lists they were written from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.workspaces.sequence_cases import USERS, random_users, write_sequences

from alphafuse.data import sequence_store
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.data.sequences import Sequences
from alphafuse.errors import WorkspaceError


def _lists(sequences: Sequences) -> list[list[int]]:
    return [sequences.of(user).tolist() for user in range(sequences.num_users)]


def test_blocks_are_the_row_groups_of_all_shards(tmp_path: Path) -> None:
    users = random_users(23)
    store = write_sequences(tmp_path, users, users_per_block=3, users_per_shard=10)
    assert store.users.tolist() == [3, 3, 3, 1, 3, 3, 3, 1, 3]
    chosen = store.read([2, 3, 5, 8])
    numbers = [6, 7, 8, 9, 13, 14, 15, 20, 21, 22]
    assert _lists(chosen) == [users[number][0] for number in numbers]
    assert chosen.user_ids.to_pylist() == [f"user {number}" for number in numbers]
    assert chosen.train_end.tolist() == [users[number][1] for number in numbers]
    assert _lists(store.read([])) == []
    assert _lists(store.read_all()) == [items for items, _ in users]
    assert [length for block in store.trained_lengths() for length in block.tolist()] == [end for _, end in users]


def test_groups_hold_all_users_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_store, "GROUP_USERS", 6)
    users = random_users(23)
    groups = list(write_sequences(tmp_path, users, users_per_block=3, users_per_shard=10).groups())
    assert [items for group in groups for items in _lists(group)] == [items for items, _ in users]
    assert max(group.num_users for group in groups) <= 6 + 3


def test_positions_that_are_held_out_do_not_train(tmp_path: Path) -> None:
    held_out = [[0, 2], [], [], [1]]
    store = write_sequences(tmp_path, USERS, users_per_block=1, users_per_shard=3, held_out=held_out)
    chosen = store.read([0, 1, 3])
    assert _lists(chosen) == [USERS[number][0] for number in (0, 1, 3)]
    trained = chosen.trained()
    assert _lists(trained) == [[11, 13, 14, 15], [20, 21], [40, 42]]
    assert trained.train_end.tolist() == [4, 2, 2]
    assert [length for block in store.trained_lengths() for length in block.tolist()] == [4, 2, 0, 2]
    windowing = Windowing(length=10, first_targets=10, new_targets=10)
    stream = SampleStream(store, windowing, buffer_users=100, seed=1)
    (buffer,) = stream.buffers(0, 0, 0, 1)
    histories, targets = buffer.samples.arrays(np.arange(3))
    assert histories[:, :4].tolist() == [[11, 13, 14, -1], [20, -1, -1, -1], [40, -1, -1, -1]]
    assert targets[:, :4].tolist() == [[13, 14, 15, -1], [21, -1, -1, -1], [42, -1, -1, -1]]


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    store = write_sequences(tmp_path, USERS, 2)
    shard = tmp_path / "sequences" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(WorkspaceError, match=r"part-00000\.parquet cannot be used.*--redo prepare"):
        store.read([0])
