"""Bytes that a rank reads of a log, which is large enough for its blocks to be divided."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.workspaces.sequence_cases import random_users, write_sequences

from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.storage.workspace import Workspace

LAST = Windowing(3, 1, 1)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 300 blocks and 70,000 samples."""
    folder = tmp_path_factory.mktemp("log")
    write_sequences(folder, random_users(16_800), users_per_block=56, users_per_shard=5_600)
    return folder


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("buffers", [1, 2])
def test_a_rank_reads_little_more_than_its_share_of_a_log(
    log: Path, monkeypatch: pytest.MonkeyPatch, buffers: int, world_size: int
) -> None:
    """More by the blocks of a buffer that it shares with its neighbours, at most two. A buffer has 150 blocks here; one
    of a million users has 122."""
    sizes = [
        pq.read_metadata(path).row_group(group).total_byte_size
        for path in sorted((log / "sequences").glob("*.parquet"))
        for group in range(100)
    ]
    stream = SampleStream(SequenceStore(Workspace(str(log))), LAST, 16_800 // buffers, seed=5)
    assert len(stream) >= 65_000
    read: list[int] = []
    original = SequenceStore.read
    monkeypatch.setattr(SequenceStore, "read", lambda store, blocks: (read.extend(blocks), original(store, blocks))[1])
    for rank in range(world_size):
        read.clear()
        assert len(list(stream.buffers(1, 0, rank, world_size))) == buffers
        assert sum(sizes[block] for block in read) <= 1.15 * sum(sizes) / world_size
