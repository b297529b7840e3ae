"""Guesses which columns of two tables are item ids, texts, users and times, from their names and first values.

A guess says why it was made, and which other columns could have been meant. Nothing here knows files or settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.data.importers.columns import as_ids, as_text, as_times
from alphafuse.data.preparation.text import TextTemplate
from alphafuse.errors import ConfigError, DataError

T = TypeVar("T")

ITEM_NAMES = (
    "itemid", "productid", "parentasin", "asin", "sku", "movieid", "bookid", "isbn", "articleid", "newsid", "trackid",
    "songid", "videoid", "gameid", "businessid", "gmapid", "recipeid", "courseid", "poiid", "docid", "contentid", "iid",
    "item", "product", "movie", "book", "article", "news", "id",
)  # fmt: skip
USER_NAMES = (
    "userid", "customerid", "reviewerid", "visitorid", "memberid", "accountid", "clientid", "buyerid", "uid", "user",
    "customer", "reviewer", "visitor", "member", "username", "sessionid", "session",
)  # fmt: skip
TIME_NAMES = (
    "timestamp", "eventtime", "time", "unixreviewtime", "datetime", "date", "createdat", "ts", "unixtime", "tdat",
    "clicktime", "orderdate", "purchasedate",
)  # fmt: skip
TITLE_NAMES = (
    "title", "itemname", "productname", "producttitle", "booktitle", "movietitle", "prodname", "headline", "name",
)  # fmt: skip
TEXT_NAMES = ("brand", "author", "artist", "category", "categories", "genre", "genres", "class", "description")
"""Names, without case and punctuation, by which columns are known, the best first."""
MOST_TEXTS = 6
"""Most columns in the template of a text."""


@dataclass(frozen=True)
class Guess:
    """The column that plays a role.

    Attributes:
        reason: why it was taken, for people.
        others: columns that could have been meant instead.
    """

    column: str
    reason: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Columns of one source with their first rows.

    Attributes:
        where: file of the rows, for messages.
    """

    rows: pa.Table
    where: str

    @property
    def names(self) -> list[str]:
        return self.rows.column_names

    def ids(self, name: str) -> pa.Array | None:
        """Values as ids; None where the column holds none: other types, or nothing but missing values."""
        values = _converted(lambda: as_ids(self.rows[name], self.where, name))
        return values if values is not None and values.null_count < len(values) else None

    def is_time(self, name: str) -> bool:
        """Tell whether a column holds times: dates, or numbers, which a name must confirm."""
        found = _converted(lambda: as_times(self.rows[name], self.where, name))
        return found is not None and found[1] is not None

    def is_date(self, name: str) -> bool:
        found = _converted(lambda: as_times(self.rows[name], self.where, name))
        return found is not None and found[1] == "dates"

    def values(self, name: str) -> pa.Array | None:
        """Values as texts, without empty ones; None where there are none, or the column is nested."""
        values = _converted(lambda: as_text(self.rows[name], self.where, name))
        values = None if values is None else values.filter(pc.not_equal(values, ""))
        return values if values else None

    def texts(self, name: str) -> pa.Array | None:
        """Values as texts; None where few of them are words: numbers, links, dates, or nested records."""
        values = self.values(name)
        if values is None:
            return None
        words = pc.and_(
            pc.match_substring_regex(values, r"\pL\pL"),
            pc.invert(pc.match_substring_regex(values, r"^(https?://|[\[{]*\{|[\[(]?['\"]?https?://)")),
        )
        is_text = _share(words) >= 0.5
        return values if is_text and not self.is_date(name) else None


def guess_items(items: Table, log: Table, item_id: str | None, log_item_id: str | None) -> tuple[Guess, Guess]:
    """Guess the columns that name the items in catalog and log: equal names, usual names, common values.

    Args:
        item_id, log_item_id: columns that are known already.

    Raises:
        DataError: no two columns fit.
    """
    ours = {name: ids for name in _given(items, item_id) if (ids := items.ids(name)) is not None}
    ours = {name: ids for name, ids in ours.items() if name == item_id or len(pc.unique(ids)) == len(ids)}
    theirs = {name: ids for name in _given(log, log_item_id) if (ids := log.ids(name)) is not None}
    scores: dict[tuple[str, str], float] = {}
    common: dict[tuple[str, str], float] = {}
    for own, own_ids in ours.items():
        for other, other_ids in theirs.items():
            other_values = pc.unique(other_ids.drop_null())
            common[own, other] = _share(pc.is_in(other_values, own_ids))
            names = _name_score(own, ITEM_NAMES) + _name_score(other, ITEM_NAMES) + 0.5 * (_plain(own) == _plain(other))
            scores[own, other] = common[own, other] + names - 2 * _name_score(other, (*USER_NAMES, *TIME_NAMES))
    ranked = sorted(scores, key=lambda pair: -scores[pair])
    if not ranked or (log_item_id is None and not _is_seen(*ranked[0], ours, theirs)):
        raise DataError(
            f"{items.where} and {log.where}: no column of each is seen to name the items (values that are there once "
            "in the catalog, and come back in the log). Choose them by --item-id and --log-item-id; the columns are "
            f"{_listed(items.names)} and {_listed(log.names)}"
        )
    own, other = ranked[0]
    share = f"{common[own, other]:.0%} of the first rows of the log are among the first rows of the catalog"
    close = [pair for pair in ranked[1:] if scores[pair] > scores[ranked[0]] - 0.5]
    return (
        _guess(own, f"each value once; {share}", (pair[0] for pair in close), item_id),
        _guess(other, share, (pair[1] for pair in close), log_item_id),
    )


def _is_seen(own: str, other: str, ours: Mapping[str, pa.Array], theirs: Mapping[str, pa.Array]) -> bool:
    """Tell whether a column of the log is one of item ids: by its values, or by its name."""
    common = max(_share(pc.is_in(theirs[other], ours[own])), _share(pc.is_in(ours[own], theirs[other])))
    return common > 0.1 or _plain(own) == _plain(other) or bool(_name_score(other, ITEM_NAMES))


def guess_user(log: Table, item: str, user_id: str | None) -> Guess:
    """Guess the column that names the users.

    Raises:
        DataError: none fits.
    """
    free = [name for name in _given(log, user_id) if name != item and log.ids(name) is not None]
    named = _by_name(free, USER_NAMES)
    left = named or [name for name in free if not _name_score(name, (*TIME_NAMES, *ITEM_NAMES)) and _repeats(log, name)]
    if not left or (len(left) > 1 and not named):
        raise DataError(
            f"{log.where}: no column is seen to name the users; choose it by --user-id. The columns are "
            f"{_listed(log.names)}"
        )
    reason = "by its name" if named else "the only other column whose values are ids that come again"
    return _guess(left[0], reason, left[1:], user_id)


def guess_time(log: Table, taken: Iterable[str], timestamp: str | None) -> Guess | None:
    """Guess the column that orders the interactions; None where no column holds times."""
    free = [name for name in _given(log, timestamp) if name not in set(taken) and log.is_time(name)]
    named = _by_name(free, TIME_NAMES)
    left = named or [name for name in free if log.is_date(name)] or ([timestamp] if timestamp in free else [])
    if not left:
        return None
    return _guess(left[0], "by its name" if named else "it holds dates", left[1:], timestamp)


def guess_texts(items: Table, item: str, title: str | None) -> tuple[Guess | None, list[str]]:
    """Guess the title, and all columns whose texts say what an item is, the title in front.

    Returns:
        The title, None where no column has a usual name; and the columns of texts, short ones before long ones.
    """
    found = {name: texts for name in items.names if (texts := items.texts(name)) is not None and name != item}
    named = _given(items, title) if title is not None else _by_name(items.names, TITLE_NAMES)
    # A title is a text by its name, be it a number ("1984").
    found |= {name: items.values(name) for name in named if items.values(name) is not None}
    named = [name for name in named if name in found]
    guess = _guess(named[0], "by its name", named[1:], title) if named else None
    usable = [name for name in found if _fits_template(name) and not _name_score(name, TIME_NAMES)]
    usable = [name for name in usable if not _plain(name).endswith(("id", "url", "image", "images"))]
    known = {name: bool(_name_score(name, TEXT_NAMES)) for name in usable}
    lengths = {name: pc.mean(pc.utf8_length(found[name])).as_py() for name in usable}
    rest = sorted(set(usable) - set(named[:1]), key=lambda name: (not known[name], lengths[name]))[: MOST_TEXTS - 1]
    return guess, [*(name for name in named[:1] if name in usable), *sorted(rest, key=lambda name: lengths[name])]


def _fits_template(name: str) -> bool:
    """Tell whether a name may stand in a template, where braces, brackets, `:` and `!` have a meaning."""
    try:
        return TextTemplate(f"{{{name}}}").columns == [name]
    except ConfigError:
        return False


def _given(table: Table, column: str | None) -> list[str]:
    """The column that was chosen, or all."""
    if column is None:
        return table.names
    if column not in table.names:
        raise DataError(f"{table.where} has no column {column!r}. Its columns: {_listed(table.names)}")
    return [column]


def _by_name(columns: Iterable[str], known: Sequence[str]) -> list[str]:
    """The columns with a usual name, the best first."""
    return sorted((name for name in columns if _name_score(name, known)), key=lambda name: -_name_score(name, known))


def _name_score(name: str, known: Sequence[str]) -> float:
    """The score of a name by how usual it is: 1 for the first of the known ones, 0 for one that is unknown."""
    plain = _plain(name)
    if plain in known:
        return 1 - known.index(plain) / len(known) / 2
    return 0.0


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _repeats(log: Table, name: str) -> bool:
    ids = log.ids(name)
    return ids is not None and 1 < len(pc.unique(ids)) < len(ids)


def _share(mask: pa.Array) -> float:
    """The share of True in a mask of bool."""
    return pc.mean(pc.cast(mask, pa.float64())).as_py()


def _guess(column: str, reason: str, others: Iterable[str], given: str | None) -> Guess:
    if given is not None:
        return Guess(column, "as chosen")
    return Guess(column, reason, tuple(dict.fromkeys(name for name in others if name != column)))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _converted(convert: Callable[[], T]) -> T | None:
    try:
        return convert()
    except (DataError, pa.ArrowException):
        return None
