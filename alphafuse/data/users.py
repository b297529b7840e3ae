"""Finds the users to recommend to: those of the log, or those of a file, with their histories.

Users come as a stream, so that neither the log nor the file has to fit into memory. Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.config import SourceConfig
from alphafuse.data.catalog_lookup import find_ids
from alphafuse.data.importers.columns import as_ids
from alphafuse.data.importers.source import Source, find_sources
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.data.sequences import Sequences
from alphafuse.errors import DataError
from alphafuse.storage.workspace import Workspace


@dataclass(frozen=True)
class Histories:
    """A group of users with their histories.

    Attributes:
        sequences: the sequences that hold the histories; the split is not used.
        users: [queries], positions of the users in `sequences`; a history is all items of the user.
    """

    sequences: Sequences
    users: np.ndarray

    @property
    def positions(self) -> np.ndarray:
        """Lengths of the histories, [queries]."""
        return np.diff(self.sequences.starts)[self.users]

    def split(self, most: int) -> Iterator[Histories]:
        """Yields the same users in groups of at most `most`."""
        for start in range(0, len(self.users), most):
            yield Histories(self.sequences, self.users[start : start + most])


def test_users(workspace: Workspace) -> Iterator[Histories]:
    """Yields all users with a test target, with all their interactions; all users if the split has no test targets."""
    tests = workspace.artifact("sequences").require().details["targets"]["test"] > 0
    for sequences in SequenceStore(workspace).groups():
        chosen = np.unique(sequences.targets("test")[0]) if tests else np.arange(sequences.num_users)
        yield Histories(sequences, chosen)


def find_users(path: str) -> list[Source]:
    """Find the files of `recommend.users`, and check the first rows of the first one.

    Raises:
        DataError: there is no such file, or it lacks a column or has one of another type.
    """
    sources = find_sources("recommend.users", SourceConfig(path=path), ".")
    has_histories = _has_histories(sources)
    table = sources[0].peek(["user_id", "history"] if has_histories else ["user_id"])
    as_ids(table["user_id"], sources[0].uri, "user_id")
    if has_histories:
        history_items(table["history"], sources[0].uri)
    return sources


def users_of(workspace: Workspace, sources: Sequence[Source], counts: Counter[str]) -> Iterator[Histories]:
    """Yields the users that a file lists. A file with the column `user_id` names users of the log, which come in the
    order of the log; a file with `user_id` and `history` gives lists of item ids, which come in the order of the file.

    Left out are rows without an id, users that are not in the log or were named before, items that are not in the
    catalog, and histories without any remaining item.

    Args:
        counts: receives the number of rows left out, by reason; complete at the end of the stream.

    Raises:
        DataError: the file lacks a column, has one of another type, or nothing remains of it.
    """
    nothing = True
    find = _given_histories if _has_histories(sources) else _known_users
    for histories in find(workspace, sources, counts):
        nothing = nothing and not len(histories.users)
        yield histories
    if nothing:
        raise DataError(f"recommend.users: nothing is left of {sources[0].uri} ({dict(counts)})")


def _has_histories(sources: Sequence[Source]) -> bool:
    try:
        sources[0].require(["history"])
    except DataError:
        return False
    return True


def _known_users(workspace: Workspace, sources: Sequence[Source], counts: Counter[str]) -> Iterator[Histories]:
    named = [table["user_id"].combine_chunks() for table in _read(sources, ["user_id"], counts)]
    all_named = pa.concat_arrays(named) if named else pa.array([], pa.string())
    wanted = pc.unique(all_named)
    counts["users_named_before"] += len(all_named) - len(wanted)
    counts["users_not_in_the_log"] += len(wanted)
    for sequences in SequenceStore(workspace).groups():
        chosen = np.flatnonzero(pc.is_in(sequences.user_ids, wanted))
        counts["users_not_in_the_log"] -= len(chosen)
        yield Histories(sequences, chosen)


def _given_histories(workspace: Workspace, sources: Sequence[Source], counts: Counter[str]) -> Iterator[Histories]:
    for table in _read(sources, ["user_id", "history"], counts):
        items, lengths = history_items(table["history"], sources[0].uri)
        known = find_ids(workspace.artifact("catalog"), items)
        index = np.array([known.get(item, -1) for item in items.to_pylist()], np.int64)
        counts["items_not_in_the_catalog"] += int((index < 0).sum())
        ends = np.cumsum(lengths)
        left = {
            user: history[history >= 0]
            for user, history in enumerate(np.split(index, ends[:-1]))
            if history.max(initial=-1) >= 0
        }
        counts["users_without_a_known_item"] += len(table) - len(left)
        names = table["user_id"].combine_chunks().take(pa.array(left, pa.int64())).to_pylist()
        yield Histories(_sequences(names, list(left.values())), np.arange(len(left)))


def history_items(histories: pa.ChunkedArray, where: str) -> tuple[pa.Array, np.ndarray]:
    """Item ids of histories, one history after the other, and the lengths of the histories.

    Raises:
        DataError: the column holds no lists, or lists of something else than ids.
    """
    column = histories.combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise DataError(f"{where}: column 'history' must hold lists of item ids, found {column.type}")
    column = column.cast(pa.list_(column.type.value_type))
    items = as_ids(pa.chunked_array([pc.list_flatten(column)]), where, "history")
    return items, np.asarray(pc.fill_null(pc.list_value_length(column), 0))


def _read(sources: Sequence[Source], columns: Sequence[str], counts: Counter[str]) -> Iterator[pa.Table]:
    """Yields the rows that have a user id, of all sources; ids are strings."""
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
