"""Listeners that choose which events of its runs and shared stages a comparison shows."""

from __future__ import annotations

import dataclasses

from alphafuse.events import Event, Listener, Progress, StageFailed, StageWarning, WorkersRestarted


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
