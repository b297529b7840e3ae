"""Which numbers of a run's events are tracked, under which names, over which axis."""

from __future__ import annotations

from alphafuse.events import EpochMetrics, Event, Metrics, StepMeans, TrainingProgress
from monitoring.run_log.training_curves import CURVES


def tracked_numbers(event: Event) -> tuple[int, dict[str, float]]:
    """Place on the axis, and numbers by name; no numbers for events that are not tracked.

    `train/…` and `step/…` (seconds of a step by what they go to, of rank 0) go over the optimizer's steps,
    `epoch/loss` and `validation/…` over epochs; `test/…` are single numbers.
    """
    match event:
        case TrainingProgress():
            told = {f"train/{name}": getattr(event, name) for name in CURVES}
            return event.done, {name: value for name, value in told.items() if value is not None}
        case StepMeans(rank=0):
            spans = {f"step/{span}_seconds": seconds for span, seconds in event.span_seconds().items()}
            return event.step, {"step/seconds": event.seconds, **spans}
        case EpochMetrics():
            validation = {f"validation/{name}": value for name, value in event.numbers.items()}
            return event.epoch, {"epoch/loss": event.loss, **validation}
        case Metrics(stage="evaluate"):
            return 0, {f"test/{name}": value for name, value in event.numbers.items()}
    return 0, {}
