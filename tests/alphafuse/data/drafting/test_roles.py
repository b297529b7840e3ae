"""Guesses of columns, on tables as they are met: usual names, unusual names, and several that could be meant."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from alphafuse.data.drafting.roles import Guess, Table, guess_items, guess_texts, guess_time, guess_user
from alphafuse.errors import DataError


def _table(**columns: list[Any]) -> Table:
    return Table(pa.table(columns), "FILE")


MOVIES = _table(movieId=["1", "2", "3"], title=["Heat", "Alien", "Seven"], genres=["Crime", "Horror", "Crime|Thriller"])
RATINGS = _table(userId=["7", "7", "8"], movieId=["1", "2", "1"], rating=["3", "1", "2"], timestamp=["5", "6", "7"])


def test_movielens() -> None:
    item, other = guess_items(MOVIES, RATINGS, None, None)
    assert (item.column, other.column, item.others, other.others) == ("movieId", "movieId", (), ())
    assert guess_user(RATINGS, "movieId", None) == Guess("userId", "by its name")
    assert guess_time(RATINGS, ("userId", "movieId"), None) == Guess("timestamp", "by its name")
    title, texts = guess_texts(MOVIES, "movieId", None)
    assert (title, texts) == (Guess("title", "by its name"), ["title", "genres"])


def test_unusual_names_are_known_by_their_values() -> None:
    items = _table(artikel=["a", "b", "c"], farbe=["rot", "rot", "blau"], preis=["1", "2", "3"])
    log = _table(kunde=["u", "u", "v"], gekauft=["c", "a", "a"], wann=["2024-01-01", "2024-01-02", "2024-01-03"])
    item, other = guess_items(items, log, None, None)
    assert (item.column, other.column) == ("artikel", "gekauft")
    assert "100% of the first rows" in other.reason
    assert guess_user(log, "gekauft", None).column == "kunde"
    assert guess_time(log, ("gekauft", "kunde"), None) == Guess("wann", "it holds dates")
    assert guess_texts(items, "artikel", None) == (None, ["farbe"])


def test_what_else_could_be_meant_is_told_and_may_be_chosen() -> None:
    log = _table(
        session_id=["s", "s", "t"],
        user_id=["u", "u", "v"],
        item_id=["a", "b", "a"],
        date=["2024-01-01"] * 3,
        time=["1", "2", "3"],
    )
    user = guess_user(log, "item_id", None)
    assert (user.column, user.others) == ("user_id", ("session_id",))
    assert guess_user(log, "item_id", "session_id") == Guess("session_id", "as chosen")
    time = guess_time(log, ("item_id", "user_id"), None)
    assert time is not None
    assert (time.column, time.others) == ("time", ("date",))
    items = _table(asin=["a", "b"], parent_asin=["a", "b"], name=["A", "B"], title=["x", "y"])
    item, _ = guess_items(items, log, None, None)
    assert (item.column, item.others) == ("parent_asin", ("asin",))
    title, _ = guess_texts(items, "asin", None)
    assert title == Guess("title", "by its name", ("name",))


def test_texts_are_words_short_ones_first() -> None:
    items = _table(
        item_id=["a", "b"],
        description=["a long description of it", "another long description"],
        price=["1.5", "2"],
        image=["https://x/a.png", "https://x/b.png"],
        added=["2024-01-01", "2024-01-02"],
        brand=["Acme", None],
        **{"a:b": ["no name", "of a template"]},
        tags=[["red", "warm"], []],
        size=[{"w": 1}, {"w": 2}],
    )
    assert guess_texts(items, "item_id", None) == (None, ["brand", "tags", "description"])


def test_a_title_may_be_a_number() -> None:
    title, texts = guess_texts(_table(item_id=["a"], title=["1984"]), "item_id", None)
    assert title is not None
    assert (title.column, texts) == ("title", ["title"])


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (_table(x=["7", "8"], y=["9", "9"]), "no column of each .* --item-id and --log-item-id.*'movieId'.*'x', 'y'"),
        (_table(movieId=["1", "2"], stars=["5", "4"]), "no column is seen to name the users; choose it by --user-id"),
        (_table(movieId=["1", "1"], p=["a", "a"], q=["b", "b"]), "no column is seen to name the users"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(log: Table, message: str) -> None:
    with pytest.raises(DataError, match=message):
        guess_user(log, guess_items(MOVIES, log, None, None)[1].column, None)


def test_a_chosen_column_must_be_there() -> None:
    with pytest.raises(DataError, match="FILE has no column 'sku'"):
        guess_items(MOVIES, RATINGS, "sku", None)
    with pytest.raises(DataError, match="FILE has no column 'name'"):
        guess_texts(MOVIES, "movieId", "name")


def test_a_log_without_times_has_none() -> None:
    assert guess_time(_table(user_id=["u"], item_id=["a"], rating=["3"]), ("user_id", "item_id"), None) is None
