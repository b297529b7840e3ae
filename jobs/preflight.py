"""Checks before a run begins that the cluster can hold each of its stages, rather than hours later, at its turn."""

from __future__ import annotations

from collections.abc import Sequence

from alphafuse.config import Config
from alphafuse.stages import Stage
from alphafuse.storage.workspace import Workspace
from jobs.execution.placement import missing_places, require_places


def require_room(config: Config, workspace: Workspace, stages: Sequence[Stage], again: Stage | None) -> None:
    """Check every stage that has something to do; one that is finished may have needed machines that are gone.

    Args:
        again: this stage and all later ones are redone.

    Raises:
        ResourceError: the cluster cannot hold a stage, even when it has grown.
    """
    first_again = len(stages) if again is None else stages.index(again)
    for number, stage in enumerate(stages):
        has_work = number >= first_again or not stage.is_finished(workspace)
        if has_work and stage.resources:
            require_places(stage.resources, stage.resources_of(config))


def waiting(config: Config, workspace: Workspace, stage: Stage) -> str | None:
    """The message to a user whose cluster must grow before all workers of a stage have a place; None where it need
    not, or where the stage has nothing to do."""
    if not stage.resources or stage.is_finished(workspace):
        return None
    return missing_places(stage.resources, stage.resources_of(config))
