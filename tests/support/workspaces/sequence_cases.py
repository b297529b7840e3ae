"""Hand-made sequences, in memory and as an artefact of several blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from alphafuse.data.sequence_store import SequenceStore
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace

USERS = [([10, 11, 12, 13, 14, 15], 6), ([20, 21], 2), ([30, 31, 32], 0), ([40, 41, 42, 43], 3)]
"""Items of each user, and the number of them that train."""


def write_sequences(
    folder: Path,
    users: list[tuple[list[int], int]],
    users_per_block: int,
    users_per_shard: int = 10**6,
    held_out: list[list[int]] | None = None,
) -> SequenceStore:
    """Write the artefact `sequences`. No user has validation targets.

    Args:
        users: (items, train_end) of each user.
        held_out: positions of each user that do not train.
    """
    artifact, inputs = Workspace(str(folder)).artifact("sequences"), {"made by": "hand"}
    for number, first in enumerate(range(0, len(users), users_per_shard)):
        shard = users[first : first + users_per_shard]
        ends = pa.array([end for _, end in shard], pa.int32())
        table = pa.table(
            {
                "user_id": [f"user {first + row}" for row in range(len(shard))],
                "items": pa.array([items for items, _ in shard], pa.list_(pa.int64())),
                "train_end": ends,
                "validation_end": ends,
            }
        )
        if held_out is not None:
            positions = held_out[first : first + users_per_shard]
            table = table.append_column("held_out", pa.array(positions, pa.list_(pa.int32())))
        name = f"part-{number:05d}.parquet"
        artifact.write_table(name, table, fingerprint(inputs), first_row=first, row_group_size=users_per_block)
    artifact.commit(inputs, {"targets": {"test": sum(len(items) - max(end, 1) for items, end in users)}})
    return SequenceStore(Workspace(str(folder)))


def random_users(count: int, seed: int = 0) -> list[tuple[list[int], int]]:
    """Users with 1 to 12 items, some of whom do not train. No item occurs twice, so that every target is unique."""
    generator = np.random.default_rng(seed)
    users, item = [], 0
    for _ in range(count):
        length = int(generator.integers(1, 13))
        users.append((list(range(item, item + length)), length if generator.random() < 0.8 else 0))
        item += length
    return users


def train_targets(users: list[tuple[list[int], int]]) -> list[int]:
    """All training targets, ascending."""
    return sorted(item for items, end in users for item in items[1:end])
