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
from alphafuse.data.importers.columns import as_ids, as_times
from alphafuse.data.importers.source import Source
from alphafuse.data.preparation.other_forms import count_decomposed, known_forms
from alphafuse.data.preparation.scratch import RunWriter, read_bucket, write_rows
from alphafuse.data.preparation.time_units import epoch_units
from alphafuse.errors import DataError
from alphafuse.storage.folder import Folder

NUM_EXAMPLES = 5


def interaction_columns(config: InteractionsConfig) -> list[str]:
    """Names of the columns that are read from the log."""
    return [config.user_id, config.item_id, *([] if config.timestamp is None else [config.timestamp])]


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
        users = as_ids(table[config.user_id], source.uri, config.user_id)
        items = as_ids(table[config.item_id], source.uri, config.item_id)
        times = np.full(len(users), np.nan)
        if config.timestamp is not None:
            times, kind = as_times(table[config.timestamp], source.uri, config.timestamp)
            kinds |= {kind} if kind else set()
            units |= epoch_units(times) if kind == "numbers" else {}
        has_user = users.is_valid().to_numpy(zero_copy_only=False)
        has_item = items.is_valid().to_numpy(zero_copy_only=False)
        index = _item_index(items.fill_null(""), item_hashes)
        lost = has_user & has_item & (index < 0)
        kept = has_user & has_item & (index >= 0)
        if len(unknown) < NUM_EXAMPLES and lost.any():
            examples = [*unknown, *pc.unique(items.filter(pa.array(lost))).slice(0, 2 * NUM_EXAMPLES).to_pylist()]
            unknown = list(dict.fromkeys(examples))[:NUM_EXAMPLES]
            lost_ids = items.filter(pa.array(lost))
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
    encoded = table["user_id"].combine_chunks().dictionary_encode()
    ids = encoded.dictionary
    order = np.lexsort((ids.to_numpy(zero_copy_only=False).astype(str), hash_ids(ids)))
    ids = ids.take(pa.array(order))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    users = position[encoded.indices.to_numpy()]
    log = pd.DataFrame({"user": users, "item": table["item"].to_numpy(), "time": table["time"].to_numpy()})
    log = log.sort_values("user", kind="stable", ignore_index=True)
    repeated = log.duplicated() & log["time"].notna()
    log = log[~repeated]
    sizes = np.bincount(log["user"], minlength=len(ids))
    few = sizes < min_interactions
    foreign = np.zeros(len(ids), bool) if belongs is None else ~few & ~belongs(ids)
    kept_users = ~few & ~foreign
    log = log[kept_users[log["user"]]]
    time = log.groupby("user")["time"].ffill()
    time = time.groupby(log["user"]).bfill()
    users, times = log["user"].to_numpy(), time.to_numpy()
    backwards = (users[1:] == users[:-1]) & (times[1:] < times[:-1])
    by_time = np.lexsort((times, users))
    kept_sizes = sizes[kept_users]
    offsets = np.concatenate([[0], np.cumsum(kept_sizes)])
    first_times = times[by_time][offsets[:-1]]
    columns = {
        "user_id": ids.filter(pa.array(kept_users)),
        "items": _lists(offsets, log["item"].to_numpy()[by_time]),
        "times": _lists(offsets, times[by_time]),
    }
    write_rows(scratch, name, pa.table(columns))
    counts = {
        "duplicates_dropped": int(repeated.sum()),
        "users_with_few_interactions": int(few.sum()),
        "interactions_of_users_with_few": int(sizes[few].sum()),
        "users_without_split": int(foreign.sum()),
        "interactions_of_users_without_split": int(sizes[foreign].sum()),
        "interactions": len(log),
        "out_of_order": int(backwards.sum()),
        "users_without_timestamps": int(np.isnan(first_times).sum()),
    }
    return {"rows": int(kept_users.sum()), "counts": counts}


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


def _item_index(items: pa.Array, item_hashes: np.ndarray) -> np.ndarray:
    """Index of each item id, −1 for ids that are not in the catalog (but for one in 2^64 / items): int64 [rows]."""
    hashes = hash_ids(items)
    index = np.searchsorted(item_hashes, hashes)
    index[index == len(item_hashes)] = 0
    return np.where(item_hashes[index] == hashes, index, -1)


def _lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
