"""Calls are made at the same time; results come in the order of the arguments."""

from __future__ import annotations

import threading

import pytest

from alphafuse.storage.filesystem.side_by_side import AT_A_TIME, side_by_side


def test_calls_wait_together() -> None:
    together = threading.Barrier(AT_A_TIME, timeout=60)

    def square(number: int) -> int:
        together.wait()  # passes when as many wait
        return number * number

    assert side_by_side(square, range(2 * AT_A_TIME)) == [number * number for number in range(2 * AT_A_TIME)]
    assert side_by_side(square, []) == []


def test_an_error_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 // number, [1, 0, 2])
