"""Reads histories and item ids in whatever form a caller has them: lists, columns, or tables of pandas and pyarrow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from alphafuse.data.frames import is_table, to_arrow
from alphafuse.data.importers.columns import as_ids, require_columns
from alphafuse.data.users import history_items
from alphafuse.errors import DataError

HISTORIES = "the histories"
EXAMPLE = '[["12", "7"], ["3"]] are two histories, oldest item first'


@dataclass(frozen=True)
class GivenHistories:
    """Histories as they were given.

    Attributes:
        items: string [items of all histories], ids, one history after the other; null where an id is missing.
        lengths: int64 [histories].
        user_ids: string [histories], of a table; None of lists.
    """

    items: pa.Array
    lengths: np.ndarray
    user_ids: pa.Array | None


def read_histories(given: Any) -> GivenHistories:
    """Read histories.

    Args:
        given: lists of item ids, oldest first (nested lists, or a column of lists of pandas or pyarrow); or a table of
            pandas, pyarrow or another package with the interface of Arrow that has the columns `user_id` and `history`.

    Raises:
        DataError: it is something else, or its values are no ids.
    """
    if is_table(given):
        table = to_arrow(given, HISTORIES)
        require_columns(HISTORIES, table.column_names, ["user_id", "history"])
        items, lengths = history_items(table["history"], HISTORIES)
        return GivenHistories(items, lengths, as_ids(table["user_id"], HISTORIES, "user_id"))
    histories = [_history(history) for history in _listed(given, HISTORIES, EXAMPLE)]
    lengths = np.array([len(history) for history in histories], np.int64)
    items = read_ids([item for history in histories for item in history], HISTORIES)
    return GivenHistories(items, lengths, None)


def read_ids(given: Any, where: str = "the items") -> pa.Array:
    """Read item ids, strings or integers, as strings [items]; null where one is missing.

    Args:
        where: name of the ids in messages.

    Raises:
        DataError: these are no ids.
    """
    ids = _listed(given, where, '["12", "7"] are two items')
    try:
        column = pa.chunked_array([pa.array(ids)])
    except (pa.ArrowException, TypeError) as error:
        raise DataError(f"{where} must be given by ids that are all strings or all integers ({error})") from error
    return as_ids(column, where, "item_id")


def _history(given: Any) -> list[Any]:
    return [] if given is None else _listed(given, HISTORIES, EXAMPLE)


def _listed(given: Any, where: str, example: str) -> list[Any]:
    """The values as a list.

    Raises:
        DataError: these are no values of a list.
    """
    if isinstance(given, pa.Array | pa.ChunkedArray):
        values: list[Any] = given.to_pylist()
        return values
    if isinstance(given, str | bytes | dict) or is_table(given) or not isinstance(given, Iterable):
        raise DataError(f"{where} must be lists of item ids, found {type(given).__name__} {given!r}: {example}")
    return list(given)
