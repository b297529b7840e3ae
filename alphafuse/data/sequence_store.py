"""Reads the users' sequences from storage in blocks, so that a log may be larger than memory.

A block is a row group of the artefact `sequences` (docs/workspace.md). Knows nothing of samples or their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.data.sequences import Sequences
from alphafuse.storage.manifest import FileRecord
from alphafuse.storage.parquet_files import group_rows
from alphafuse.storage.workspace import Workspace

COLUMNS = ["user_id", "items", "train_end", "validation_end"]
HELD_OUT = "held_out"
"""Name of a column that exists only if items are held out of training."""
RECENT_START = "recent_start"
"""Name of a column that exists only if interactions have times."""
GROUP_USERS = 65_536
"""Number of users that `groups` reads at a time."""


class SequenceStore:
    """The sequences of all users of a workspace, in the order of the shards.

    Args:
        with_recent: read where recent interactions begin, too, which counting alone asks for.

    Attributes:
        users: int64 [blocks], number of users in each block.

    Raises:
        WorkspaceError: `prepare` has not finished, or a shard is damaged.
    """

    def __init__(self, workspace: Workspace, with_recent: bool = False) -> None:
        self._artifact = workspace.artifact("sequences")
        self._places: list[tuple[FileRecord, int]] = []  # file and row group of each block
        self._held_out: list[str] = []
        self._recent: list[str] = []
        users = []
        for file in self._artifact.require().files:
            names, groups = self._artifact.read_parquet(file, _describe)
            self._held_out = [name for name in names if name == HELD_OUT]
            self._recent = [name for name in names if with_recent and name == RECENT_START]
            self._places += [(file, group) for group in range(len(groups))]
            users += groups
        self.users = np.array(users, np.int64)

    def __len__(self) -> int:
        return len(self.users)

    def read(self, blocks: Sequence[int]) -> Sequences:
        """The users of some blocks, in the order of the blocks."""
        table = self._table(blocks, [*COLUMNS, *self._held_out, *self._recent])
        items = table["items"].combine_chunks()
        lengths = np.asarray(items.value_lengths(), np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        held_out = np.zeros(starts[-1], bool) if self._held_out else None
        if held_out is not None:
            positions = table[HELD_OUT].combine_chunks()
            held_out[np.repeat(starts[:-1], positions.value_lengths()) + positions.flatten().to_numpy()] = True
        return Sequences(
            items=items.flatten().to_numpy(),
            starts=starts,
            train_end=table["train_end"].to_numpy().astype(np.int64),
            validation_end=table["validation_end"].to_numpy().astype(np.int64),
            user_ids=table["user_id"],
            held_out=held_out,
            recent_start=table[RECENT_START].to_numpy().astype(np.int64) if self._recent else None,
        )

    def read_all(self) -> Sequences:
        """All users at once."""
        return self.read(range(len(self)))

    def groups(self) -> Iterator[Sequences]:
        """Yields all users in order, in groups of blocks with about `GROUP_USERS` users each."""
        number = (np.cumsum(self.users) - self.users) // GROUP_USERS
        for _, blocks in groupby(range(len(self)), lambda block: number[block]):
            yield self.read(list(blocks))

    def trained_lengths(self) -> Iterator[np.ndarray]:
        """Yields for each block the number of training items of its users: int64 [users of the block]."""
        for blocks, table in self._shards(["train_end", *self._held_out]):
            lengths = table["train_end"].to_numpy().astype(np.int64)
            for column in self._held_out:
                lengths -= np.asarray(table[column].combine_chunks().value_lengths(), np.int64)
            yield from np.split(lengths, np.cumsum(self.users[blocks])[:-1])

    def num_validation_targets(self) -> int:
        """Number of validation targets of all users together."""
        total = 0
        for _, table in self._shards(["train_end", "validation_end"]):
            train_end, validation_end = (column.to_numpy().astype(np.int64) for column in table.columns)
            total += int(np.maximum(validation_end - np.maximum(train_end, 1), 0).sum())
        return total

    def _shards(self, columns: Sequence[str]) -> Iterator[tuple[list[int], pa.Table]]:
        """Yields for each shard its blocks and some columns of their users."""
        for _, group in groupby(range(len(self)), lambda block: self._places[block][0]):
            blocks = list(group)
            yield blocks, self._table(blocks, columns)

    def _table(self, blocks: Sequence[int], columns: Sequence[str]) -> pa.Table:
        tables = []
        for file, places in groupby((self._places[block] for block in blocks), lambda place: place[0]):
            tables.append(self._read_groups(file, [group for _, group in places], columns))
        return pa.concat_tables(tables) if tables else self._read_groups(self._places[0][0], [], columns)

    def _read_groups(self, file: FileRecord, groups: list[int], columns: Sequence[str]) -> pa.Table:
        return self._artifact.read_parquet(file, lambda parquet: parquet.read_row_groups(groups, columns=list(columns)))


def _describe(parquet: pq.ParquetFile) -> tuple[list[str], list[int]]:
    """Names of the columns, and the number of rows in each row group."""
    return parquet.schema_arrow.names, group_rows(parquet)
