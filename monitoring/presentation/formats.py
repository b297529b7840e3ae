"""Numbers and times for people, formatted the same on the console, in the report and on the dashboard."""

from __future__ import annotations


def number(value: object) -> str:
    """Integers with thousands separators, other numbers with four significant digits, anything else as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def duration(seconds: float) -> str:
    """A duration in its two largest units: "8.3 s", "4 min 05 s", "2 h 10 min", "3 d 4 h"."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def rough(seconds: float) -> str:
    """A duration in one unit, for numbers that change while they are read: "8 s", "119 s", "4 min", "47 h", "3 d"."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(count: float) -> str:
    """A number of bytes in the largest binary unit that it fills."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] in ("B", "KiB") else f"{count:.1f} {units[0]}"
