"""Writes the artefacts `sequences` and `popularity` from grouped users and the split of the configuration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from alphafuse.config import SplitConfig
from alphafuse.data.hashing import hash_with_seed
from alphafuse.data.scratch import read_columns
from alphafuse.data.splits import (
    Cuts,
    Ends,
    UserParts,
    cuts_by_ratios,
    num_targets,
    split_by_file,
    split_leave_one_out,
    split_temporal,
    split_users,
)
from alphafuse.storage import Folder
from alphafuse.workspace import Artifact


def find_cuts(scratch: Folder, files: Sequence[str], split: SplitConfig, seed: int) -> Cuts:
    """Where the protocol divides all users, or all interactions, into parts.

    Holds 8 bytes per user (`users`) or per interaction (`temporal`) in memory.

    Args:
        files: names of the grouped users of all buckets.
    """
    if split.kind == "users":
        keys = [hash_with_seed(_users(scratch, file), seed) for file in files]
        return cuts_by_ratios(np.concatenate(keys), split.ratios)
    if split.kind == "temporal":
        times = [_times(read_columns(scratch, file, ["times"])) for file in files]
        known = [values[~np.isnan(values)] for values in times]
        return cuts_by_ratios(np.concatenate(known), split.ratios)
    return None, None


def write_sequences_shard(
    artifact: Artifact,
    name: str,
    wanted: str,
    first_row: int,
    scratch: Folder,
    file: str,
    split: SplitConfig,
    seed: int,
    cuts: Cuts,
    parts: UserParts | None,
) -> dict[str, int]:
    """Write the grouped users of a bucket as a shard (docs/workspace.md).

    Args:
        file: name of the grouped users.
        cuts: from `find_cuts`.
        parts: what the file of the split says, for `kind: file`.

    Returns:
        Number of targets of each split.
    """
    table = read_columns(scratch, file, ["user_id", "items", "times"])
    lengths = np.asarray(table["items"].combine_chunks().value_lengths(), np.int64)
    train_end, validation_end = _ends(table, lengths, split, seed, cuts, parts)
    columns = {
        "user_id": table["user_id"],
        "items": table["items"],
        "train_end": pa.array(train_end, pa.int32()),
        "validation_end": pa.array(validation_end, pa.int32()),
    }
    artifact.write_table(name, pa.table(columns), wanted, first_row=first_row)
    return {part: int(counts.sum()) for part, counts in num_targets(lengths, train_end, validation_end).items()}


def write_popularity(artifact: Artifact, wanted: str, sequences: Artifact, num_items: int) -> None:
    """Count each item's interactions inside of `items[:train_end]`, shard by shard, and write them."""
    counts = np.zeros(num_items, np.int64)
    for shard in sequences.require().files:
        table = sequences.read_table(shard.name, ["items", "train_end"])
        items = table["items"].combine_chunks()
        lengths = np.asarray(items.value_lengths(), np.int64)
        positions = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        train = positions < np.repeat(table["train_end"].to_numpy(), lengths)
        index, times = np.unique(items.flatten().to_numpy()[train], return_counts=True)
        counts[index] += times
    table = pa.table({"item_index": np.arange(num_items), "count": counts})
    artifact.write_table("popularity.parquet", table, wanted)


def _ends(
    table: pa.Table, lengths: np.ndarray, split: SplitConfig, seed: int, cuts: Cuts, parts: UserParts | None
) -> Ends:
    users = table["user_id"].combine_chunks()
    if split.kind == "users":
        return split_users(hash_with_seed(users, seed), lengths, cuts)
    if split.kind == "leave_one_out":
        return split_leave_one_out(lengths)
    if split.kind == "temporal":
        return split_temporal(_times(table), lengths, cuts)
    assert parts is not None
    return split_by_file(parts.lookup(users), lengths)


def _users(scratch: Folder, file: str) -> pa.Array:
    return read_columns(scratch, file, ["user_id"])["user_id"].combine_chunks()


def _times(table: pa.Table) -> np.ndarray:
    return table["times"].combine_chunks().flatten().to_numpy()
