"""Whom to recommend to: histories of the log's users, or histories given in a file.

Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.data.catalog_lookup import find_ids
from alphafuse.data.importers.columns import as_ids
from alphafuse.data.importers.source import Source
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.data.sequences import Sequences
from alphafuse.errors import DataError
from alphafuse.workspace import Workspace


@dataclass(frozen=True)
class Histories:
    """Users with their histories.

    Attributes:
        sequences: holds the histories; its split does not matter.
        users: [queries], position of each in `sequences`; the history is all its items.
        counts: what was left out, by reason.
    """

    sequences: Sequences
    users: np.ndarray
    counts: dict[str, int]

    @property
    def positions(self) -> np.ndarray:
        """[queries], lengths of the histories."""
        return np.diff(self.sequences.starts)[self.users]


def test_users(workspace: Workspace) -> Histories:
    """Every user with a test target, with all their interactions; all users where the split tests none."""
    sequences = SequenceStore(workspace).read_all()
    users = np.unique(sequences.targets("test")[0])
    return Histories(sequences, users if len(users) else np.arange(sequences.num_users), {})


def users_of(workspace: Workspace, sources: Sequence[Source]) -> Histories:
    """The users that a file lists: `user_id`, known from the log, or `user_id` and `history`, a list of item ids.

    Left out and counted: rows without an id, users that the log does not know, items that the catalog does not
    know, and histories of which nothing remains.

    Raises:
        DataError: the file lacks a column, has one of another type, or nothing remains of it.
    """
    counts: Counter[str] = Counter()
    if _has_histories(sources):
        histories = _given_histories(workspace, sources, counts)
    else:
        histories = _known_users(workspace, sources, counts)
    if not len(histories.users):
        raise DataError(f"recommend.users: nothing is left of {sources[0].uri} ({dict(counts)})")
    return histories


def single_history(items: Sequence[int]) -> Histories:
    """One history, given as item indices."""
    return Histories(_sequences(["history"], [np.array(items, np.int64)]), np.zeros(1, np.int64), {})


def _has_histories(sources: Sequence[Source]) -> bool:
    try:
        sources[0].require(["history"])
    except DataError:
        return False
    return True


def _known_users(workspace: Workspace, sources: Sequence[Source], counts: Counter[str]) -> Histories:
    sequences = SequenceStore(workspace).read_all()
    found = []
    for table in _read(sources, ["user_id"], counts):
        position = pc.index_in(table["user_id"], sequences.user_ids.combine_chunks())
        counts["users_not_in_the_log"] += position.null_count
        found.append(position.drop_null().to_numpy())
    users = np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)
    return Histories(sequences, users, dict(counts))


def _given_histories(workspace: Workspace, sources: Sequence[Source], counts: Counter[str]) -> Histories:
    names: list[str] = []
    histories: list[np.ndarray] = []
    for table in _read(sources, ["user_id", "history"], counts):
        column = table["history"].combine_chunks()
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise DataError(f"{sources[0].uri}: column 'history' must hold lists of item ids, found {column.type}")
        column = column.cast(pa.list_(column.type.value_type))
        items = as_ids(pa.chunked_array([pc.list_flatten(column)]), sources[0].uri, "history")
        known = find_ids(workspace.artifact("catalog"), items)
        index = np.array([known.get(item, -1) for item in items.to_pylist()], np.int64)
        counts["items_not_in_the_catalog"] += int((index < 0).sum())
        ends = np.cumsum(np.asarray(pc.fill_null(pc.list_value_length(column), 0)))
        for user_id, history in zip(table["user_id"].to_pylist(), np.split(index, ends[:-1]), strict=True):
            if (history >= 0).any():
                names.append(user_id)
                histories.append(history[history >= 0])
            else:
                counts["users_without_a_known_item"] += 1
    return Histories(_sequences(names, histories), np.arange(len(names)), dict(counts))


def _read(sources: Sequence[Source], columns: Sequence[str], counts: Counter[str]) -> Iterator[pa.Table]:
    """The rows of all sources that have a user id, ids as strings."""
    for source in sources:
        for table in source.read(columns):
            ids = as_ids(table["user_id"], source.uri, "user_id")
            counts["rows_without_user_id"] += ids.null_count
            position = table.column_names.index("user_id")
            yield table.set_column(position, "user_id", ids).filter(ids.is_valid())


def _sequences(names: list[str], histories: list[np.ndarray]) -> Sequences:
    starts = np.cumsum([0, *(len(history) for history in histories)])
    zeros = np.zeros(len(names), np.int64)
    items = np.concatenate(histories) if histories else zeros
    return Sequences(items, starts, zeros, zeros, pa.chunked_array([pa.array(names, pa.string())]))
