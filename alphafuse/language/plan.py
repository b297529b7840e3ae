"""Plans the embedding of a catalog: which texts to embed, and in which file the vector of each item will be.

Works on content hashes alone, with 16 bytes per item, and 8 for the place of its vector. Knows nothing of engines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Batch:
    """Texts that are embedded together and written to one file.

    Attributes:
        file: name of the file, made from the hashes of the texts, so that the same batch always gives the same file.
        shard: number of the shard that holds the texts.
        rows: [texts], rows of the texts in that shard, ascending.
    """

    file: str
    shard: int
    rows: np.ndarray


@dataclass(frozen=True)
class Plan:
    """The texts to embed, and the place of the vector of every item after that.

    Attributes:
        files: names of the files with vectors: those known before, then one for each batch.
        file: [items] int32, the item's position in `files`.
        row: [items] int32, the item's row in that file.
        batches: the texts that have to be embedded.
        distinct: number of different texts in the catalog.
    """

    files: list[str]
    file: np.ndarray
    row: np.ndarray
    batches: list[Batch]
    distinct: int

    @property
    def to_embed(self) -> int:
        """Number of texts in the batches."""
        return sum(len(batch.rows) for batch in self.batches)


def make_plan(known: Sequence[tuple[str, np.ndarray]], shards: Sequence[np.ndarray], batch_size: int) -> Plan:
    """Give every distinct text one place: a file that already holds its vector, or the batch of its first occurrence.

    Args:
        known: name of each file with vectors, and the hashes of its rows, [rows, 2] uint64.
        shards: hashes of each shard's texts, [items of the shard, 2] uint64.
        batch_size: most texts in a batch; no batch crosses a shard.
    """
    known_rows = [len(hashes) for _, hashes in known]
    num_known = sum(known_rows)
    hashes = np.concatenate([*(hashes for _, hashes in known), *shards, np.zeros((0, 2), np.uint64)])
    first = _first_occurrence(hashes)[num_known:]  # [items]
    files = [name for name, _ in known]

    # Place of every row that is the first occurrence of a text: known rows first, then rows of the catalog.
    file = np.empty(len(hashes), np.int32)
    row = np.empty(len(hashes), np.int32)
    file[:num_known] = np.repeat(np.arange(len(known)), known_rows)
    row[:num_known] = np.concatenate([np.arange(rows) for rows in known_rows]) if known else 0

    batches = []
    start = num_known
    for shard, content in enumerate(shards):
        own = np.arange(start, start + len(content))
        needed = np.flatnonzero(first[own - num_known] == own)
        for low in range(0, len(needed), batch_size):
            rows = needed[low : low + batch_size].astype(np.int32)
            file[start + rows], row[start + rows] = len(files), np.arange(len(rows))
            name = hashlib.sha256(content[rows].tobytes()).hexdigest()[:32]
            files.append(f"{name}.parquet")
            batches.append(Batch(files[-1], shard, rows))
        start += len(content)
    used = np.zeros(len(hashes), bool)
    used[first] = True
    return Plan(files, file[first], row[first], batches, distinct=int(used.sum()))


def hash_array(column: pa.ChunkedArray) -> np.ndarray:
    """Hashes of a column of fixed-size binary(16), as [rows, 2] uint64."""
    chunks = [np.zeros((0, 2), np.uint64)]
    for chunk in column.chunks:
        content = np.frombuffer(chunk.buffers()[1] or b"", np.uint64).reshape(-1, 2)
        chunks.append(content[chunk.offset : chunk.offset + len(chunk)])
    return np.concatenate(chunks)


def _first_occurrence(hashes: np.ndarray) -> np.ndarray:
    """Index of the first row with the same content, for each row of [rows, 2]: [rows] int64."""
    if not len(hashes):
        return np.zeros(0, np.int64)
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal rows stay in their order
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(hashes[order, 0]) != 0) | (np.diff(hashes[order, 1]) != 0)
    starts = np.flatnonzero(begins)
    first = np.empty(len(order), np.int64)
    first[order] = np.repeat(order[starts], np.diff(starts, append=len(order)))
    return first
