"""Numbers and times in a readable form."""

from __future__ import annotations

import pytest

from monitoring.presentation.formats import duration, number, rough, size


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(1_234_567), "1,234,567"),
        (number(0.123456), "0.1235"),
        (number(True), "True"),
        (number("text"), "text"),
        (duration(8.25), "8.2 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(245), "4 min 05 s"),
        (duration(7_800), "2 h 10 min"),
        (duration(3 * 86_400 + 4 * 3_600), "3 d 4 h"),
        (rough(-1), "0 s"),
        (rough(119), "119 s"),
        (rough(120), "2 min"),
        (rough(7_200), "2 h"),
        (rough(200_000), "2 d"),
        (size(512), "512 B"),
        (size(2**20 * 1.5), "1.5 MiB"),
        (size(2**50), "1024.0 TiB"),
    ],
)
def test_formats(shown: str, expected: str) -> None:
    assert shown == expected
