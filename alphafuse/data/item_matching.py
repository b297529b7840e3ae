"""Finds the items of one catalog in another by their ids: merges two lists that are in the order of the ids' hashes.

Reads only the shards of the other catalog that a range of items can be in, one at a time.
"""

from __future__ import annotations

import bisect

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.data.hashing import hash_ids
from alphafuse.storage.artifact import Artifact


def match_items(catalog: Artifact, start: int, stop: int, other: Artifact) -> np.ndarray:
    """Index in the catalog `other` of each of the items [start, stop) of `catalog`, −1 where it has none: int64
    [stop − start]. Those that are found ascend."""
    found = np.full(stop - start, -1)
    if start == stop:
        return found
    ids = _read_ids(catalog, start, stop)
    hashes = hash_ids(ids)
    shards = other.require().files

    def first_hash(number: int) -> np.uint64:
        first = other.take_rows(shards[number], np.zeros(1, np.int64), ["item_id"])
        return hash_ids(first["item_id"].combine_chunks())[0]

    begin = max(0, bisect.bisect_right(range(len(shards)), hashes[0], key=first_hash) - 1)
    for shard in shards[begin:]:
        theirs = other.read_table(shard, ["item_id"])["item_id"].combine_chunks()
        keys = hash_ids(theirs)
        if keys[0] > hashes[-1]:
            break
        places = np.minimum(np.searchsorted(hashes, keys), len(hashes) - 1)
        rows = np.flatnonzero(hashes[places] == keys)
        equal = pc.equal(ids.take(pa.array(places[rows])), theirs.take(pa.array(rows))).to_numpy(zero_copy_only=False)
        found[places[rows[equal]]] = shard.first_row + rows[equal]
    return found


def _read_ids(catalog: Artifact, start: int, stop: int) -> pa.Array:
    parts = []
    for shard in catalog.require().files:
        low, high = max(start - shard.first_row, 0), min(stop - shard.first_row, shard.rows)
        if low < high:
            parts.append(catalog.read_table(shard, ["item_id"])["item_id"].slice(low, high - low))
    return pa.concat_arrays([chunk for part in parts for chunk in part.chunks])
