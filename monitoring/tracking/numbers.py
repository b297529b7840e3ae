"""Chooses the numbers of a run's events that are tracked, with their names and their axes."""

from __future__ import annotations

from alphafuse.events import EpochMetrics, Event, Metrics, StepMeans, TrainingProgress
from monitoring.run_log.training_curves import CURVES


def tracked_numbers(event: Event) -> tuple[int, dict[str, float]]:
    """Return the place on the axis, and the numbers by name; no numbers for events that are not tracked.

    The axis of `train/…` and `step/…` (seconds of a step by span, of rank 0) is the optimizer's steps, that of
    `epoch/loss` and `validation/…` epochs; `test/…` and `evaluate/…` (seconds of the evaluation by span) are single
    numbers.
    """
    match event:
        case TrainingProgress():
            numbers = {f"train/{name}": getattr(event, name) for name in CURVES}
            return event.done, {name: value for name, value in numbers.items() if value is not None}
        case StepMeans(rank=0):
            spans = {f"step/{span}_seconds": seconds for span, seconds in event.span_seconds().items()}
            return event.step, {"step/seconds": event.seconds, **spans}
        case EpochMetrics():
            validation = {f"validation/{name}": value for name, value in event.numbers.items()}
            return event.epoch, {"epoch/loss": event.loss, **validation}
        case Metrics(stage="evaluate"):
            group = "evaluate" if event.split is None else "test"
            return 0, {f"{group}/{name}": value for name, value in event.numbers.items()}
    return 0, {}
