"""Finds the result of a run on the test split in its events."""

from __future__ import annotations

from typing import NamedTuple

from alphafuse.events import StageFinished
from monitoring.run_log.reader import Run


class FinalResult(NamedTuple):
    """A result on the test split.

    Attributes:
        metric, value: name and value of the monitored metric.
        seen: "left out" or "left in": how the ranking treated items that the user has seen; "not recorded" if unknown.
    """

    metric: str
    value: float
    seen: str


def final_result(run: Run) -> FinalResult | None:
    """The result of a run on the test split; None if it is not evaluated yet."""
    for event in reversed(run.events.get("evaluate", ())):
        value = event.summary.get(run.monitor) if isinstance(event, StageFinished) else None
        if isinstance(event, StageFinished) and isinstance(value, (int, float)):
            return FinalResult(run.monitor, float(value), str(event.summary.get("seen_items", "not recorded")))
    return None
