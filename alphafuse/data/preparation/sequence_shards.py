"""Writes the artefacts `sequences` and `popularity` from grouped users and the split of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from alphafuse.config import SplitConfig
from alphafuse.data import popularity, sequence_store
from alphafuse.data.hashing import hash_with_seed
from alphafuse.data.preparation.scratch import read_columns
from alphafuse.data.preparation.splits import (
    Cuts,
    Ends,
    UserParts,
    cold_items,
    cuts_by_ratios,
    ends_at,
    held_out_positions,
    num_targets,
    split_by_file,
    split_leave_one_out,
    split_temporal,
    split_users,
)
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace


@dataclass(frozen=True)
class ShardPlan:
    """The shard that a bucket of grouped users becomes.

    Attributes:
        file: name of the file of grouped users, in the scratch folder.
        name: name of the shard.
        first_row: number of the first user of the shard.
    """

    file: str
    name: str
    first_row: int


def find_cuts(scratch: Folder, files: Sequence[str], split: SplitConfig, seed: int) -> Cuts:
    """Find the cuts at which the protocol divides all users, or all interactions, into train, validation and test.

    Needs 8 bytes of memory per user (`users`) or per interaction (`temporal`).

    Args:
        files: names of the files of grouped users, for all buckets.
    """
    if split.kind == "users":
        keys = [hash_with_seed(_users(scratch, file), seed) for file in files]
        return cuts_by_ratios(np.concatenate(keys), split.ratios)
    if split.kind == "temporal":
        times = [_times(read_columns(scratch, file, ["times"])) for file in files]
        known = [values[~np.isnan(values)] for values in times]
        return cuts_by_ratios(np.concatenate(known), split.ratios)
    return None, None


def find_cold_items(catalog: Artifact, split: SplitConfig, seed: int) -> np.ndarray | None:
    """Mask of the items that are held out of training, by item index: bool [items]; None: `split` holds none out."""
    if not split.cold_items:
        return None
    ids = [catalog.read_table(shard, ["item_id"])["item_id"] for shard in catalog.require().files]
    return cold_items(np.concatenate([hash_with_seed(column, seed) for column in ids]), split.cold_items)


def write_sequences_shard(
    artifact: Artifact,
    wanted: str,
    scratch: Folder,
    plan: ShardPlan,
    split: SplitConfig,
    seed: int,
    cuts: Cuts,
    parts: UserParts | None,
    cold: np.ndarray | None,
    recent: float | None,
) -> None:
    """Write the grouped users of a bucket as a shard (docs/workspace.md).

    The details of its record are the number of targets of each split and, as `held_out`, the number of interactions
    before `train_end` that do not train.

    Args:
        cuts: result of `find_cuts`.
        parts: contents of the file of the split, for `kind: file`.
        cold: [items] of bool, True for items held out of training; None: none are.
        recent: time from which interactions are recent (`recent_cut`).
    """
    table = read_columns(scratch, plan.file, ["user_id", "items", "times"])
    lengths = np.asarray(table["items"].combine_chunks().value_lengths(), np.int64)
    train_end, validation_end = _ends(table, lengths, split, seed, cuts, parts)
    columns = {
        "user_id": table["user_id"],
        "items": table["items"],
        "train_end": pa.array(train_end, pa.int32()),
        "validation_end": pa.array(validation_end, pa.int32()),
    }
    if recent is not None:
        columns[sequence_store.RECENT_START] = pa.array(ends_at(_times(table), lengths, recent), pa.int32())
    counts = np.zeros_like(lengths)
    if cold is not None:
        items = table["items"].combine_chunks().flatten().to_numpy()
        positions, counts = held_out_positions(items, lengths, train_end, cold)
        ends = pa.array(np.cumsum([0, *counts]), pa.int32())
        columns[sequence_store.HELD_OUT] = pa.ListArray.from_arrays(ends, pa.array(positions, pa.int32()))
    targets = num_targets(lengths, train_end, validation_end, counts)
    details = {"held_out": int(counts.sum()), **{part: int(number.sum()) for part, number in targets.items()}}
    artifact.write_table(plan.name, pa.table(columns), wanted, first_row=plan.first_row, details=details)


def write_popularity(workspace: Workspace, wanted: str, num_items: int, cold: np.ndarray | None) -> dict[str, int]:
    """Count the training interactions of each item, all and the recent ones, some blocks of users at a time, and write
    the counts.

    Args:
        cold: [items] of bool, True for items held out of training; None: none are.

    Returns:
        `held_out_items`, the number of items held out; empty if none are.
    """
    counts, recent = np.zeros((2, num_items), np.int64)
    for sequences in SequenceStore(workspace, with_recent=True).groups():
        for total, chosen in ((counts, sequences.trained()), (recent, sequences.recently_trained())):
            index, times = np.unique(chosen.items, return_counts=True)
            total[index] += times
    table = pa.table({"item_index": np.arange(num_items), "count": counts})
    if recent.any():
        table = table.append_column(popularity.RECENT, pa.array(recent))
    if cold is not None:
        table = table.append_column(popularity.HELD_OUT, pa.array(cold))
    workspace.artifact("popularity").write_table(popularity.FILE, table, wanted)
    return {} if cold is None else {"held_out_items": int(cold.sum())}


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
