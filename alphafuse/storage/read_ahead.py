"""Reading overlaps computing: the next item is made while the present one is in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items in their order; one that is made by reading or by numpy, which let other threads run, costs the
    consumer no time. Holds two items at a time. What the items raise is raised here."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        coming = reader.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # not the end
