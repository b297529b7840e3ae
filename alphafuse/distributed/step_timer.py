"""Measures where the time of a repeated step goes, and counts what it moves.

Knows nothing of what the spans mean. A GPU works behind Python, so its times are taken on the device's own clock.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

Item = TypeVar("Item")


class Clock(Protocol):
    """Marks points in time, tells which have passed, and measures the seconds between two marks, which it waits for."""

    def mark(self) -> Any: ...

    def passed(self, mark: Any) -> bool: ...

    def seconds(self, start: Any, end: Any) -> float: ...


class HostClock:
    """Clock of this process."""

    def mark(self) -> float:
        return time.perf_counter()

    def passed(self, mark: float) -> bool:
        return True

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaClock:
    """Clock of the current CUDA stream: a mark lies between the work queued before it and the work queued after it."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def passed(self, mark: torch.cuda.Event) -> bool:
        return mark.query()

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
        return self.close_step().taken()

    def close_step(self) -> ClosedStep:
        """End the step, without waiting for the device to reach its end."""
        self._lap()
        closed = ClosedStep(self._clock, self._marks, dict(self._counts), self.totals)
        self._marks = []
        return closed

    def _lap(self) -> None:
        """Give the time since the last mark to the present span."""
        if self._marks:
            self._marks.append((self._clock.mark(), self._spans[-1]))


@dataclass(frozen=True)
class ClosedStep:
    """A step that the host has left behind.

    Attributes:
        clock: clock that made the marks.
        marks: points in the step, each but the first with the span of the time before it.
        counts: what was counted in the step.
        totals: sums over all steps, which get those of this one.
    """

    clock: Clock
    marks: list[tuple[Any, str | None]]
    counts: dict[str, float]
    totals: dict[str, float]

    def over(self) -> bool:
        """Tell whether the device has reached the end of the step."""
        return self.clock.passed(self.marks[-1][0])

    def taken(self) -> dict[str, float]:
        """Return what the step took, once; waits for its end. See `StepTimer.end_step`."""
        taken: dict[str, float] = defaultdict(float)
        start = self.marks[0][0]
        for mark, span in self.marks[1:]:
            seconds = self.clock.seconds(start, mark)
            taken["seconds"] += seconds
            if span is not None:
                taken[f"{span}_seconds"] += seconds
            start = mark
        taken.update(self.counts)
        for name, amount in taken.items():
            self.totals[name] += amount
        return dict(taken)
