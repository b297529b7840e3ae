"""Looks items up in the catalog: ids and titles by item index, and item indices by id or title.

Reads the catalog's shards as a stream or by row groups; the names of all items are never in memory at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.errors import DataError
from alphafuse.storage.artifact import Artifact

_SUGGESTIONS = 3


def item_names(catalog: Artifact, items: np.ndarray, columns: Sequence[str] = ("item_id", "title")) -> pa.Table:
    """The `item_index` and text columns of some items, by ascending index, each once.

    Only the row groups that hold one of them are read.

    Args:
        items: any shape, item indices; negative ones are left out.
    """
    wanted = np.unique(items[items >= 0])
    tables = []
    for file in catalog.require().files:
        rows = wanted[(wanted >= file.first_row) & (wanted < file.first_row + file.rows)] - file.first_row
        if len(rows):
            tables.append(catalog.take_rows(file, rows, ["item_index", *columns]))
    schema = pa.schema([("item_index", pa.int64()), *((column, pa.string()) for column in columns)])
    return pa.concat_tables(tables) if tables else schema.empty_table()


def find_ids(catalog: Artifact, item_ids: pa.Array) -> dict[str, int]:
    """Item index of each of the given ids that the catalog knows."""
    wanted = pc.unique(item_ids)
    found: dict[str, int] = {}
    for file in catalog.require().files:
        table = catalog.read_table(file, ["item_index", "item_id"])
        table = table.filter(pc.is_in(table["item_id"], wanted))
        found.update(zip(table["item_id"].to_pylist(), table["item_index"].to_pylist(), strict=True))
    return found


def find_items(catalog: Artifact, pieces: Sequence[str]) -> list[int]:
    """Item indices of a hand-written list of titles or ids that was cut at its commas.

    Titles may hold commas themselves ("Usual Suspects, The"): the longest run of pieces that forms a title is taken.
    Case does not matter; of several items with one title, the lowest index is taken.

    Raises:
        DataError: no piece holds anything, or one is neither title nor id; the message suggests similar titles.
    """
    pieces = [piece.strip() for piece in pieces if piece.strip()]
    if not pieces:
        raise DataError("the history names no item: give titles or ids, oldest first, with commas between them")
    index = _by_name(catalog, {part for piece in pieces for part in _key(piece).split(",")})
    longest = max((key.count(",") + 1 for key in index), default=0)  # pieces of a name
    items, start = [], 0
    while start < len(pieces):
        ends = range(min(start + longest, len(pieces)), start, -1)
        end = next((end for end in ends if _key(",".join(pieces[start:end])) in index), None)
        if end is None:
            near = _similar(catalog, pieces[start])
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise DataError(f"the catalog has no item with the title or id {pieces[start]!r}{hint}")
        items.append(index[_key(",".join(pieces[start:end]))])
        start = end
    return items


def _names(catalog: Artifact) -> Iterable[tuple[list[int], list[str], list[str]]]:
    """Item indices, ids and titles of one shard after the other."""
    for file in catalog.require().files:
        table = catalog.read_table(file, ["item_index", "item_id", "title"])
        yield table["item_index"].to_pylist(), table["item_id"].to_pylist(), table["title"].to_pylist()


def _by_name(catalog: Artifact, pieces: set[str]) -> dict[str, int]:
    """Item index of each title or id, by its key, that consists of some of these pieces; a title wins over an equal
    id."""
    titles: dict[str, int] = {}
    ids: dict[str, int] = {}
    for indices, item_ids, names in _names(catalog):
        for index, item_id, title in zip(indices, item_ids, names, strict=True):
            for key, known in ((title, titles), (item_id, ids)):
                if key and pieces.issuperset(_key(key).split(",")):
                    known.setdefault(_key(key), index)
    return ids | titles


def _key(name: str) -> str:
    """Normalised form of a name, for comparisons: case and blanks around commas do not matter."""
    return re.sub(r"\s*,\s*", ",", name.strip().lower())


def _similar(catalog: Artifact, piece: str) -> list[str]:
    """A few titles similar to the piece: those that contain it, or else those with the closest spelling."""
    holding: list[str] = []
    close: list[str] = []
    for _, _, titles in _names(catalog):
        holding += [title for title in titles if title and piece.lower() in title.lower()][:_SUGGESTIONS]
        if len(holding) >= _SUGGESTIONS:
            break
        close = difflib.get_close_matches(piece, [*close, *filter(None, titles)], _SUGGESTIONS)
    return holding[:_SUGGESTIONS] or close
