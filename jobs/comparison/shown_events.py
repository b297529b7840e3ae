"""Which events of its parts a comparison shows: listeners that leave the others out."""

from __future__ import annotations

import dataclasses

from alphafuse.events import Event, Listener, Progress, StageFailed, StageWarning, WorkersRestarted


class OfRun:
    """Shows the progress, warnings and restarts of a run, under its name. How it starts and ends tells the comparison,
    since a run has several stages."""

    def __init__(self, name: str, show: Listener) -> None:
        self._name = name
        self._show = show

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress | StageWarning | WorkersRestarted):
            self._show(dataclasses.replace(event, stage=self._name))


class OfSharedStage:
    """Shows all of a shared stage but its failure, which the comparison tells: an error may be older than the stage."""

    def __init__(self, show: Listener) -> None:
        self._show = show

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StageFailed):
            self._show(event)
