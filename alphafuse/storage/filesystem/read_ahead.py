"""Overlaps reading with computing: the next item is made while the present one is in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items in order, and make the next one in a thread meanwhile. This saves time where items are made by
    reading or by numpy, which let other threads run. Holds two items at a time. Errors of the items are raised here."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        coming = reader.submit(next, iterator, end)
        try:
            while (item := coming.result()) is not end:
                coming = reader.submit(next, iterator, end)
                yield item  # type: ignore[misc]  # not the end
        finally:
            # An error would hold itself by it, and all that the items hold: threads that read ahead for them.
            del coming
