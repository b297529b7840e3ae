"""Measures where the time of a repeated step goes, and counts what it moves.

Knows nothing of what the spans mean. A GPU works behind Python, so its times are taken on the device's own clock.
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
    """Marks points in time, and measures the seconds between two marks."""

    def mark(self) -> Any: ...

    def seconds(self, start: Any, end: Any) -> float: ...


class HostClock:
    """Clock of this process."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaClock:
    """Clock of the current CUDA stream: a mark lies between the work queued before it and the work queued after it."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return start.elapsed_time(end) / 1e3


class StepTimer:
    """Seconds by span and counts by name of one step; outside of a step it measures nothing.

    Spans nest: the time of an inner span does not count for the outer one.

    Args:
        device: device whose time is measured; None: the CPU.

    Attributes:
        totals: sums of what all steps so far took, named as by `end_step`.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._clock: Clock = CudaClock() if device is not None and device.type == "cuda" else HostClock()
        self._spans: list[str | None] = [None]
        self._marks: list[tuple[Any, str | None]] = []
        self._counts: dict[str, float] = defaultdict(float)
        self.totals: dict[str, float] = defaultdict(float)

    def begin_step(self) -> None:
        """Begin a step."""
        self._counts.clear()
        self._marks = [(self._clock.mark(), None)]

    def steps(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield one item for each step; fetching the item is the first span of the step, `data`."""
        iterator, none_left = iter(items), object()
        while True:
            self.begin_step()
            with self.span("data"):
                item: Any = next(iterator, none_left)
            if item is none_left:
                self._marks = []
                return
            yield item

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Measure the block as a span of the step's time."""
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
        """End the step and return what it took: `seconds` in all, `SPAN_seconds`, and the counts."""
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
        for name, amount in taken.items():
            self.totals[name] += amount
        return dict(taken)

    def _lap(self) -> None:
        """Give the time since the last mark to the present span."""
        if self._marks:
            self._marks.append((self._clock.mark(), self._spans[-1]))
