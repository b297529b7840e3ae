"""The numbers among the values of events, which hold texts, truth values and nothing as well."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def as_number(value: object) -> float | None:
    """The value as a number, None where it is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def numbers_in(values: Mapping[str, object], without: Collection[str] = ()) -> dict[str, float]:
    """All numbers by name, but for those of some names."""
    found = ((name, as_number(value)) for name, value in values.items() if name not in without)
    return {name: value for name, value in found if value is not None}
