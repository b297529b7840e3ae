"""Makes calls that wait for storage side by side: a bucket answers thousands of them at a time, each after a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")

AT_A_TIME = 16
"""Calls that are made at a time."""


def side_by_side(function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> list[Result]:
    """Return the results of `function` for each argument, in their order; threads make the calls. The first error, in
    the order of the arguments, is raised here."""
    with ThreadPoolExecutor(AT_A_TIME, "side-by-side") as threads:
        return list(threads.map(function, arguments))
