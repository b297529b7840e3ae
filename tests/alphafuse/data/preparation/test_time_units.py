"""Seconds and milliseconds in one log are refused; other numbers have no unit."""

from __future__ import annotations

import numpy as np
import pytest

from alphafuse.data.preparation.time_units import as_date, epoch_units, require_one_unit
from alphafuse.errors import DataError

SECONDS = 1_569_888_000.0


@pytest.mark.parametrize(
    ("factor", "unit"), [(1, "seconds"), (1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")]
)
def test_units_of_dates_of_our_time(factor: float, unit: str) -> None:
    assert epoch_units(np.array([np.nan, 3, SECONDS * factor])) == {unit: SECONDS * factor}
    assert as_date(SECONDS * factor) == " (2019-10-01 00:00:00 UTC)"


@pytest.mark.parametrize("time", [-SECONDS, 0, 1, 20191001, 20191001123045, 253402300799, np.nan])
def test_other_numbers_have_no_unit(time: float) -> None:
    assert epoch_units(np.array([time])) == {}
    assert as_date(time) == ""


def test_several_units_are_refused_with_files_and_values() -> None:
    require_one_unit([("a", {"seconds": SECONDS}), ("b", {"seconds": SECONDS}), ("c", {})], "time")
    message = (
        r"'time' .*seconds \(1569888000 in a\) and milliseconds \(1569888000000 in b\).*Convert all rows to one unit"
    )
    with pytest.raises(DataError, match=message):
        require_one_unit([("a", {"seconds": SECONDS}), ("b", {"milliseconds": SECONDS * 1e3})], "time")
