"""Tells in which unit numbers count the time since 1970, and refuses logs in which several meet.

Sorted by such numbers, all rows in seconds would come before all rows in milliseconds, whenever they happened.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

import numpy as np

from alphafuse.errors import DataError

_SECONDS = (3e8, 1e10)  # 1979 to 2286
_UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


def epoch_units(times: np.ndarray) -> dict[str, float]:
    """Units in which some times are years from 1979 to 2286, each with the first of them.

    Args:
        times: [rows], NaN where missing. Other numbers, such as places in a list, have no unit.
    """
    found = {}
    for unit, factor in _UNITS.items():
        inside = (times >= _SECONDS[0] * factor) & (times < _SECONDS[1] * factor)
        if inside.any():
            found[unit] = float(times[np.argmax(inside)])
    return found


def as_date(time: float) -> str:
    """The date of a time in one of the units, in brackets for a message; empty where it is in none."""
    for unit in epoch_units(np.array([time])):
        return f" ({datetime.datetime.fromtimestamp(time / _UNITS[unit], datetime.UTC):%Y-%m-%d %H:%M:%S} UTC)"
    return ""


def require_one_unit(found: Iterable[tuple[str, Mapping[str, float]]], column: str | None) -> None:
    """Check that all times of a log are in one unit.

    Args:
        found: address of each source and its `epoch_units`.

    Raises:
        DataError: there are several.
    """
    units = {unit: (uri, time) for uri, of_source in found for unit, time in of_source.items()}
    if len(units) > 1:
        shown = " and ".join(f"{unit} ({time:.0f} in {uri})" for unit, (uri, time) in units.items())
        raise DataError(
            f"the column {column!r} (data.interactions.timestamp) seems to count the time since 1970 in "
            f"{shown}: sorted by it, the log would be out of order. Convert all rows to one unit, and correct "
            f"or remove those whose time is wrong"
        )
