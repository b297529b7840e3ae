"""The rank of every test target as a file: written while the queries go by, read to compare models query by query.

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
"""Queries of a row group: as many are held in memory while the file is written."""


@dataclass(frozen=True)
class RankedTargets:
    """Some queries with their answers.

    Attributes:
        user_ids: [queries].
        positions: [queries], of the target in the user's sequence, which is the length of the whole history.
        targets: [queries], item indices.
        ranks: [queries], best is 1.
    """

    user_ids: pa.ChunkedArray
    positions: np.ndarray
    targets: np.ndarray
    ranks: np.ndarray

    def table(self) -> pa.Table:
        """As rows of the file."""
        return pa.table([self.user_ids, self.positions.astype(np.int32), self.targets, self.ranks], SCHEMA)


@contextmanager
def writing_ranks(artifact: Artifact, wanted: str) -> Iterator[Callable[[RankedTargets], None]]:
    """Write the file of an artefact: gives a function that appends answers."""
    waiting: list[pa.Table] = []
    with artifact.writing_table(FILE, SCHEMA, wanted) as append:

        def add(answers: RankedTargets) -> None:
            waiting.append(answers.table())
            if sum(map(len, waiting)) >= GROUP_ROWS:
                append(pa.concat_tables(waiting))
                waiting.clear()

        yield add
        if waiting:
            append(pa.concat_tables(waiting))


def read_ranks(artifact: Artifact, *columns: str) -> pa.Table:
    """Columns of all queries, in the order of the users.

    Raises:
        WorkspaceError: there is no finished evaluation, or the file is missing or damaged.
    """
    artifact.require()
    return artifact.read_table(FILE, columns)
