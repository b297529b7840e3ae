"""Writes the rank of every test target to a file, and reads it to compare models query by query.

Knows nothing of metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from alphafuse.storage.artifact import Artifact

FILE = "ranks.parquet"
SCHEMA = pa.schema(
    {"user_id": pa.string(), "position": pa.int32(), "item_index": pa.int64(), "rank": pa.int64()},
)
GROUP_ROWS = 65_536
"""Number of queries in a row group, which are held in memory while the file is written."""
GROUP_BYTES = 64 * 2**20
"""Bytes at which a row group ends earlier, since user ids may be long."""


@dataclass(frozen=True)
class RankedTargets:
    """Targets of some queries with their ranks.

    Attributes:
        user_ids: [queries].
        positions: [queries], positions of the targets in the users' sequences, and so lengths of the whole histories.
        targets: [queries], item indices.
        ranks: [queries], best is 1.
    """

    user_ids: pa.ChunkedArray
    positions: np.ndarray
    targets: np.ndarray
    ranks: np.ndarray

    def table(self) -> pa.Table:
        """The queries as rows of the file."""
        return pa.table([self.user_ids, self.positions.astype(np.int32), self.targets, self.ranks], SCHEMA)


@contextmanager
def writing_ranks(artifact: Artifact, wanted: str) -> Iterator[Callable[[RankedTargets], None]]:
    """Write the file of an artefact; yields a function that appends ranked targets."""
    waiting: list[pa.Table] = []
    with artifact.writing_table(FILE, SCHEMA, wanted) as append:

        def add(answers: RankedTargets) -> None:
            waiting.append(answers.table())
            if sum(map(len, waiting)) >= GROUP_ROWS or sum(table.nbytes for table in waiting) >= GROUP_BYTES:
                append(pa.concat_tables(waiting))
                waiting.clear()

        yield add
        if waiting:
            append(pa.concat_tables(waiting))


def read_ranks(artifact: Artifact, *columns: str) -> pa.Table:
    """Read columns of all queries, in the order of the users.

    Raises:
        WorkspaceError: there is no finished evaluation, or the file is missing or damaged.
    """
    return artifact.read_table(artifact.file(FILE), columns)
