"""Which numbers of a run's events are tracked, under which names, over which axis."""

from __future__ import annotations

from collections.abc import Mapping

from alphafuse.events import Event
from monitoring.run_log.event_values import numbers_in

COUNTS = {"done", "total", "epoch"}


def tracked_numbers(event: Event) -> tuple[int, dict[str, float]]:
    """Place on the axis, and numbers by name; no numbers for events that are not tracked.

    `train/…` and `step/…` (seconds of a step by what they go to, of rank 0) go over the optimizer's steps,
    `epoch/loss` and `validation/…` over epochs; `test/…` are single numbers.
    """
    values = event.values
    if event.stage == "train" and event.kind == "progress":
        return _place(values, "done"), _numbers(values, "train", COUNTS)
    if event.stage == "train" and event.kind == "worker" and values.get("rank") == 0:
        parts = {name: value for name, value in values.items() if name.endswith("seconds")}
        return _place(values, "step"), _numbers(parts, "step", set())
    if event.stage == "train" and event.kind == "metrics":
        numbers = _numbers(values, "validation", COUNTS)
        if "validation/loss" in numbers:
            numbers["epoch/loss"] = numbers.pop("validation/loss")  # of training
        return _place(values, "epoch"), numbers
    if event.stage == "evaluate" and event.kind == "metrics":
        return 0, _numbers(values, "test", set())
    return 0, {}


def _numbers(values: Mapping[str, object], prefix: str, without: set[str]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in numbers_in(values, without).items()}


def _place(values: Mapping[str, object], name: str) -> int:
    place = values.get(name)
    return int(place) if isinstance(place, (int, float)) else 0
