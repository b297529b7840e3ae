"""Measures where the time of a repeated step goes, and counts what it moves.

Knows nothing of what the spans mean. On a GPU, whose work only begins when Python has long gone on, times are taken on
the device's own clock.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

Item = TypeVar("Item")


class Clock(Protocol):
    """Marks points in time, and tells the seconds between two of them."""

    def mark(self) -> Any: ...

    def seconds(self, start: Any, end: Any) -> float: ...


class HostClock:
    """The time of this process."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaClock:
    """The time of the current CUDA stream: a mark lies between what was put onto it before and after."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return start.elapsed_time(end) / 1e3


class StepTimer:
    """Seconds by span and counts by name of one step; outside of a step it measures nothing.

    Spans nest: the time of an inner one is not that of the outer.

    Args:
        device: whose time is measured.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._clock: Clock = CudaClock() if device is not None and device.type == "cuda" else HostClock()
        self._spans: list[str | None] = [None]
        self._marks: list[tuple[Any, str | None]] = []
        self._counts: dict[str, float] = defaultdict(float)

    def steps(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, one for each step, which begins with the span `data`: fetching the item."""
        iterator, none_left = iter(items), object()
        while True:
            self._counts.clear()
            self._marks = [(self._clock.mark(), None)]
            with self.span("data"):
                item: Any = next(iterator, none_left)
            if item is none_left:
                self._marks = []
                return
            yield item

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A stretch of the step's time."""
        self._lap()
        self._spans.append(name)
        try:
            yield
        finally:
            self._lap()
            self._spans.pop()

    def count(self, name: str, amount: float) -> None:
        """Add to what is counted under `name`."""
        if self._marks:
            self._counts[name] += amount

    def end_step(self) -> dict[str, float]:
        """What the step took: `seconds` in all, `SPAN_seconds`, and the counts. It is over then."""
        self._lap()
        taken: dict[str, float] = defaultdict(float)
        start = self._marks[0][0]
        for mark, span in self._marks[1:]:
            seconds = self._clock.seconds(start, mark)
            taken["seconds"] += seconds
            if span is not None:
                taken[f"{span}_seconds"] += seconds
            start = mark
        taken.update(self._counts)
        self._marks = []
        return dict(taken)

    def _lap(self) -> None:
        """What lies between the last mark and this one belongs to the present span."""
        if self._marks:
            self._marks.append((self._clock.mark(), self._spans[-1]))
