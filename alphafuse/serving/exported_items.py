"""Ids and titles of all items of an export, in memory: ids by item index, and item indices by id or title."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from alphafuse.errors import DataError

_SUGGESTIONS = 3


class ExportedItems:
    """Ids and titles by item index.

    Args:
        names: columns `item_id` and `title`; a row's number is the item index. Of rows with the same id the last one
            counts.
        removed: indices of items that are gone, which histories may still hold.

    Attributes:
        ids: large string [items].
        by_id: item index of each id.
    """

    def __init__(self, names: pa.Table, removed: Iterable[int] = ()) -> None:
        # Large strings, since the titles of one array may have more than 2 GiB.
        self.ids, self._titles = (names[name].cast(pa.large_string()).combine_chunks() for name in ("item_id", "title"))
        self.by_id = dict(zip(self.ids.to_pylist(), range(len(self.ids)), strict=True))
        self._removed = {*removed}

    def __contains__(self, item_id: str) -> bool:
        """Tell whether there is an item with this id that is not gone."""
        index = self.by_id.get(item_id)
        return index is not None and index not in self._removed

    def present(self) -> pa.Array:
        """Ids of all items that are not gone, by ascending index."""
        if not self._removed:
            return self.ids
        left = np.ones(len(self.ids), bool)
        left[[*self._removed]] = False
        return self.ids.filter(pa.array(left))

    def indices(self, ids: pa.Array) -> np.ndarray:
        """Item index of each id of a history, int64 [ids]; −1 where the id is missing or unknown."""
        return np.array([self.by_id.get(item, -1) for item in ids.to_pylist()], np.int64)

    def present_indices(self, ids: pa.Array) -> np.ndarray:
        """Item index of each id, int64 [ids]; −1 where the id is missing or unknown, or the item is gone."""
        index = self.indices(ids)
        return np.where(np.isin(index, [*self._removed]), -1, index)

    def names(self, items: np.ndarray) -> pa.Table:
        """The item_index, item_id and title of some items, by ascending index, each once.

        Args:
            items: any shape, item indices; negative ones are left out.
        """
        wanted = pa.array(np.unique(items[items >= 0]))
        names = [texts.take(wanted).cast(pa.string()) for texts in (self.ids, self._titles)]
        return pa.table([wanted, *names], ["item_index", "item_id", "title"])

    def find(self, pieces: Sequence[str]) -> list[int]:
        """Item indices of a hand-written list of titles or ids that was cut at its commas.

        Titles may hold commas themselves ("Usual Suspects, The"): the longest run of pieces that forms a title is
        taken. Case does not matter; of several items with one title, the lowest index is taken.

        Raises:
            DataError: no piece holds anything, or one is neither title nor id; the message suggests similar titles.
        """
        pieces = [piece.strip() for piece in pieces if piece.strip()]
        if not pieces:
            raise DataError("the history names no item: give titles or ids, oldest first, with commas between them")
        index = self._by_name({part for piece in pieces for part in _key(piece).split(",")})
        longest = max((key.count(",") + 1 for key in index), default=0)  # pieces of a name
        items, start = [], 0
        while start < len(pieces):
            ends = range(min(start + longest, len(pieces)), start, -1)
            end = next((end for end in ends if _key(",".join(pieces[start:end])) in index), None)
            if end is None:
                near = self._similar(pieces[start])
                hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
                raise DataError(f"the catalog has no item with the title or id {pieces[start]!r}{hint}")
            items.append(index[_key(",".join(pieces[start:end]))])
            start = end
        return items

    def _texts(self) -> Iterator[tuple[str, str | None]]:
        """Id and title of each item, in the order of the indices."""
        for item_id, title in zip(self.ids, self._titles, strict=True):
            yield item_id.as_py(), title.as_py()

    def _by_name(self, pieces: set[str]) -> dict[str, int]:
        """Item index of each title or id, by its key, that consists of some of these pieces; a title wins over an equal
        id."""
        titles: dict[str, int] = {}
        ids: dict[str, int] = {}
        for index, (item_id, title) in enumerate(self._texts()):
            for key, known in ((title, titles), (item_id, ids)):
                if key and pieces.issuperset(_key(key).split(",")):
                    known.setdefault(_key(key), index)
        return ids | titles

    def _similar(self, piece: str) -> list[str]:
        """A few titles similar to the piece: those that contain it, or else those with the closest spelling."""
        titles = [title for _, title in self._texts() if title]
        holding = [title for title in titles if piece.lower() in title.lower()]
        return holding[:_SUGGESTIONS] or difflib.get_close_matches(piece, titles, _SUGGESTIONS)


def _key(name: str) -> str:
    """Normalised form of a name, for comparisons: case and blanks around commas do not matter."""
    return re.sub(r"\s*,\s*", ",", name.strip().lower())
