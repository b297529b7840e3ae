"""Reading ahead: order, errors, and that one item at most is made too early."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from alphafuse.storage.filesystem.read_ahead import read_ahead


def test_the_next_item_is_made_while_one_is_in_use_and_no_further() -> None:
    made, second = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert second.wait(10)
    assert made == [0, 1]
    assert list(ahead) == [1, 2, 3, 4]


def test_nothing_and_none() -> None:
    assert list(read_ahead([])) == []
    assert list(read_ahead([None, None])) == [None, None]


def test_errors_come_in_their_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
