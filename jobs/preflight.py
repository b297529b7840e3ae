"""Checks before a run begins that the cluster can carry out each of its stages, not hours later, at its turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from alphafuse.config import Config
from alphafuse.stages import Stage
from alphafuse.storage.workspace import Workspace
from jobs.execution.gpu_check import require_working_gpus
from jobs.execution.placement import missing_places, require_places


def require_room(config: Config, workspace: Workspace, stages: Sequence[Stage], again: Stage | None) -> None:
    """Check every stage that has something to do; one that is finished may have needed machines that are gone.

    Args:
        again: this stage and all later ones are redone.

    Raises:
        ResourceError: the cluster cannot hold a stage, even when it has grown.
    """
    for stage in _with_work(workspace, stages, again):
        if stage.resources:
            require_places(stage.resources, stage.resources_of(config))


def require_gpus(config: Config, workspace: Workspace, stages: Sequence[Stage], again: Stage | None) -> None:
    """Check that torch finds the GPUs of every stage that has something to do, on the machines that are there by now.

    Raises:
        ResourceError: a machine promises a GPU, and torch finds none there.
    """
    for key, with_work in groupby(_with_work(workspace, stages, again), key=lambda stage: stage.resources):
        if key:
            require_working_gpus(key, next(with_work).resources_of(config))


def _with_work(workspace: Workspace, stages: Sequence[Stage], again: Stage | None) -> list[Stage]:
    """The stages that have something to do."""
    first_again = len(stages) if again is None else stages.index(again)
    return [stage for number, stage in enumerate(stages) if number >= first_again or not stage.is_finished(workspace)]


def waiting(config: Config, workspace: Workspace, stage: Stage) -> str | None:
    """The message to a user whose cluster must grow before all workers of a stage have a place; None where it need
    not, or where the stage has nothing to do."""
    if not stage.resources or stage.is_finished(workspace):
        return None
    return missing_places(stage.resources, stage.resources_of(config))
