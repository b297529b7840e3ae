"""Prepares the interaction log: rows of any source become one sequence of item indices per user, in time order.

There are two steps, each bounded in memory. The rows of the sources are put into buckets by a hash of the user id; the
rows of each bucket are grouped by user and sorted. Each rule counts the rows it leaves out. Knows nothing of splits or
jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.config import InteractionsConfig
from alphafuse.data.hashing import hash_ids
from alphafuse.data.importers.columns import TimeKind, as_ids, as_times
from alphafuse.data.importers.source import Source
from alphafuse.data.preparation.other_forms import count_decomposed, known_forms
from alphafuse.data.preparation.scratch import RunWriter, read_bucket, write_rows
from alphafuse.data.preparation.time_units import epoch_units
from alphafuse.errors import DataError
from alphafuse.storage.filesystem.folder import Folder

NUM_EXAMPLES = 5


def interaction_columns(config: InteractionsConfig) -> list[str]:
    """Names of the columns that are read from the log."""
    return [config.user_id, config.item_id, *([] if config.timestamp is None else [config.timestamp])]


def interaction_rows(
    config: InteractionsConfig, table: pa.Table, where: str
) -> tuple[pa.Array, pa.Array, np.ndarray, TimeKind | None]:
    """Convert rows of the log: ids of users and items, null where missing; times, NaN where missing; and their kind.

    Args:
        where: file of the rows, for messages.

    Raises:
        DataError: a column is ill-typed.
    """
    users = as_ids(table[config.user_id], where, config.user_id)
    items = as_ids(table[config.item_id], where, config.item_id)
    if config.timestamp is None:
        return users, items, np.full(len(users), np.nan), None
    return users, items, *as_times(table[config.timestamp], where, config.timestamp)


def partition_interactions(
    config: InteractionsConfig, source: Source, item_hashes: np.ndarray, scratch: Folder, prefix: str, num_buckets: int
) -> dict[str, Any]:
    """Read one source and write its interactions as runs (columns user_id, item, time).

    Rows without user or item id, and rows whose item is not in the catalog, are left out and counted.

    Args:
        item_hashes: uint64 [items], ascending; the position of a hash is the item's index.

    Returns:
        `runs`, the names of the runs; `counts`: rows_read, null_user_ids_dropped, null_item_ids_dropped,
        unknown_items_dropped, missing_timestamps, decomposed_user_ids; `unknown_items`, examples; `known_forms` of
        unknown items; `time_kinds`, numbers or dates; `time_units` of numbers.

    Raises:
        DataError: a column is missing or ill-typed, or the source is damaged.
    """
    writer = RunWriter(scratch, prefix, num_buckets)
    rules = ("null_user_ids_dropped", "null_item_ids_dropped", "unknown_items_dropped", "missing_timestamps")
    counts = Counter(dict.fromkeys(("rows_read", *rules, "decomposed_user_ids"), 0))
    unknown: list[str] = []
    forms: dict[str, str] = {}
    units: dict[str, float] = {}
    kinds: set[str] = set()
    for table in source.read(interaction_columns(config)):
        users, items, times, kind = interaction_rows(config, table, source.uri)
        kinds |= {kind} if kind else set()
        units |= epoch_units(times) if kind == "numbers" else {}
        has_user = users.is_valid().to_numpy(zero_copy_only=False)
        has_item = items.is_valid().to_numpy(zero_copy_only=False)
        index = _item_index(items.fill_null(""), item_hashes)
        lost = has_user & has_item & (index < 0)
        kept = has_user & has_item & (index >= 0)
        if len(unknown) < NUM_EXAMPLES and lost.any():
            lost_ids = items.filter(pa.array(lost))
            examples = [*unknown, *pc.unique(lost_ids).slice(0, 2 * NUM_EXAMPLES).to_pylist()]
            unknown = list(dict.fromkeys(examples))[:NUM_EXAMPLES]
            forms |= known_forms(lost_ids, lambda ids: _item_index(ids, item_hashes) >= 0)
        counts["rows_read"] += len(users)
        counts["null_user_ids_dropped"] += int((~has_user).sum())
        counts["null_item_ids_dropped"] += int((has_user & ~has_item).sum())
        counts["unknown_items_dropped"] += int(lost.sum())
        if config.timestamp is not None:
            counts["missing_timestamps"] += int(np.isnan(times[kept]).sum())
        users = users.filter(pa.array(kept))
        counts["decomposed_user_ids"] += count_decomposed(users)
        writer.add(pa.table({"user_id": users, "item": index[kept], "time": times[kept]}), hash_ids(users))
    return {
        "runs": writer.close(),
        "counts": dict(counts),
        "unknown_items": unknown,
        "known_forms": forms,
        "time_kinds": sorted(kinds),
        "time_units": units,
    }


def group_users(
    scratch: Folder,
    runs: Sequence[str],
    bucket: int,
    name: str,
    min_interactions: int,
    belongs: Callable[[pa.Array], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Group the interactions of a bucket by user and sort them by time; write columns user_id, items, times.

    Users are in the order of the hash of their id. The rules, in this order, each with its counts:

    * of rows with the same user, item and (known) time, the first is kept;
    * users with fewer than `min_interactions` interactions are left out, and then those that do not belong;
    * a row without time gets that of the row before it in the user's log, or else that of the first later row with one;
    * rows are sorted by time; rows of equal time stay in the order of the log.

    Args:
        belongs: maps user ids [users] to bool [users], True for users that stay; None: all stay.

    Returns:
        `rows`, the number of users, and `counts`: duplicates_dropped, users_with_few_interactions and
        interactions_of_users_with_few, users_without_split and interactions_of_users_without_split (they do not
        belong); of what is kept: interactions, out_of_order (rows earlier than the row before them in the user's
        log), users_without_timestamps.
    """
    table = read_bucket(scratch, runs, bucket)
    assert table is not None
    ids, users = _number_users(table["user_id"].combine_chunks())
    log = pd.DataFrame({"user": users, "item": table["item"].to_numpy(), "time": table["time"].to_numpy()})
    log = log.sort_values("user", kind="stable", ignore_index=True)
    is_repeated = log.duplicated() & log["time"].notna()
    log = log[~is_repeated]
    sizes = np.bincount(log["user"], minlength=len(ids))  # [users]
    few = sizes < min_interactions
    foreign = np.zeros(len(ids), bool) if belongs is None else ~few & ~belongs(ids)
    kept = ~few & ~foreign
    log, out_of_order = _sort_by_time(log[kept[log["user"]]])
    offsets = np.cumsum([0, *sizes[kept]])
    items, times = log["item"].to_numpy(), log["time"].to_numpy()
    columns = {"user_id": ids.filter(pa.array(kept)), "items": _lists(offsets, items), "times": _lists(offsets, times)}
    write_rows(scratch, name, pa.table(columns))
    counts = {
        "duplicates_dropped": int(is_repeated.sum()),
        "users_with_few_interactions": int(few.sum()),
        "interactions_of_users_with_few": int(sizes[few].sum()),
        "users_without_split": int(foreign.sum()),
        "interactions_of_users_without_split": int(sizes[foreign].sum()),
        "interactions": len(log),
        "out_of_order": out_of_order,
        "users_without_timestamps": int(np.isnan(times[offsets[:-1]]).sum()),
    }
    return {"rows": int(kept.sum()), "counts": counts}


def require_one_time_kind(kinds: set[str], column: str | None) -> None:
    """Check that the sources agree on what a timestamp is.

    Raises:
        DataError: some hold numbers and some dates, which cannot be compared.
    """
    if len(kinds) > 1:
        raise DataError(
            f"the column {column!r} (data.interactions.timestamp) holds numbers in one part of the log and dates in "
            f"another; convert one of them"
        )


def _number_users(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Number the users in the order of the hash of their id, and of the id where hashes are equal.

    Returns:
        The ids in this order, [users], and the number of each row's user, int64 [rows].
    """
    encoded = column.dictionary_encode()
    table = pa.table({"hash": hash_ids(encoded.dictionary), "id": encoded.dictionary})
    order = pc.sort_indices(table, [("hash", "ascending"), ("id", "ascending")])
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return encoded.dictionary.take(order), number[encoded.indices]


def _sort_by_time(log: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Fill the missing times of each user's rows, and sort the rows by time.

    Args:
        log: columns user, item and time; by user, and of one user in the order of the log.

    Returns:
        The sorted rows, and the number of rows that are earlier than the row before them in their user's log.
    """
    time = log.groupby("user")["time"].ffill()
    log = log.assign(time=time.groupby(log["user"]).bfill())
    backwards = (log["user"] == log["user"].shift()) & (log["time"] < log["time"].shift())
    return log.iloc[np.lexsort((log["time"], log["user"]))], int(backwards.sum())


def _item_index(items: pa.Array, item_hashes: np.ndarray) -> np.ndarray:
    """Index of each item id, −1 for ids that are not in the catalog (but for one in 2^64 / items): int64 [rows]."""
    hashes = hash_ids(items)
    index = np.searchsorted(item_hashes, hashes)
    index[index == len(item_hashes)] = 0
    return np.where(item_hashes[index] == hashes, index, -1)


def _lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
