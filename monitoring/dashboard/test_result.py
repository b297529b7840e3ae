"""Finds the result of a run on the test split in its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from alphafuse.events import Event
from monitoring.run_log.reader import Run


class TestResult(NamedTuple):
    """A result on the test split.

    Attributes:
        metric, value: the monitored metric.
        seen: whether items that a user has seen before were "left out" of the ranking or "left in".
    """

    metric: str
    value: float
    seen: str


def test_result(run: Run) -> TestResult | None:
    """The result on the test split, once it is evaluated."""
    stream: Sequence[Event] = run.events.get("evaluate", ())
    for event in reversed(stream):
        value = event.values.get(run.monitor)
        if event.kind == "finished" and isinstance(value, (int, float)):
            return TestResult(run.monitor, float(value), str(event.values.get("seen_items", "not recorded")))
    return None
