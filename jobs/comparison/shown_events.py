"""Listeners that choose which events of its runs and shared stages a comparison, or a tuning, shows."""

from __future__ import annotations

import dataclasses

from alphafuse.events import (
    Event,
    Listener,
    Progress,
    StageFailed,
    StageFinished,
    StageStarted,
    StageWarning,
    WorkersRestarted,
)


class RunListener:
    """Shows the progress, warnings and restarts of a run, under its name. The comparison itself reports how it
    starts and ends, since a run has several stages."""

    def __init__(self, name: str, show: Listener) -> None:
        self._name = name
        self._show = show

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress | StageWarning | WorkersRestarted):
            self._show(dataclasses.replace(event, stage=self._name))


class SharedStageListener:
    """Shows all events of a shared stage but its failure, which the comparison reports: an error may come before the
    stage begins."""

    def __init__(self, show: Listener) -> None:
        self._show = show

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StageFailed):
            self._show(event)


class InOrder:
    """Shows no progress of a run before the run is said to begin, nor after its end: where somebody else decides about
    beginning and end, as in a tuning, these events and the progress come by different ways."""

    def __init__(self, show: Listener) -> None:
        self._show = show
        self._begun: set[str] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.stage not in self._begun:
            return
        if isinstance(event, StageStarted):
            self._begun.add(event.stage)
        elif isinstance(event, StageFinished | StageFailed):
            self._begun.discard(event.stage)
        self._show(event)
