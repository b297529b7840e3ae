"""Runs stages in their order on one connection to Ray, and makes them again when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from alphafuse.config import Config
from alphafuse.errors import AlphafuseError, OwnershipError, StaleError, UnfinishedError
from alphafuse.events import (
    INTERRUPTED,
    ArtifactCommitted,
    Listener,
    StageFailed,
    StageFinished,
    StageRefused,
    StageSkipped,
    StageStarted,
    StageWarning,
    Summary,
)
from alphafuse.stages import (
    DECOMPOSE,
    EMBED,
    EVALUATE,
    EXPORT,
    PREPARE,
    RECOMMEND,
    REPORT,
    TRAIN,
    Stage,
    and_later,
    require_among,
)
from alphafuse.storage.workspace import Workspace
from jobs.execution.driver_events import driver_listener
from jobs.execution.history import History
from jobs.execution.placement import require_shared
from jobs.execution.ray_connection import connected
from jobs.execution.worker_group import keeping_ranks
from jobs.preflight import require_gpus, require_room, waiting
from jobs.stages import decompose, embed, evaluate, export, prepare, recommend, report, train
from monitoring.run_log.heartbeat import own

WORK: dict[Stage, Callable[[Config, Workspace, Listener], Summary | None]] = {
    PREPARE: prepare.run,
    EMBED: embed.run,
    DECOMPOSE: decompose.run,
    TRAIN: train.run,
    EVALUATE: evaluate.run,
    RECOMMEND: recommend.run,
    EXPORT: export.run,
    REPORT: report.run,
}
"""The function that does the work of each stage."""


def redo(workspace: Workspace, stage: Stage) -> None:
    """Delete the artefacts of a stage and all later ones, the latest first: an interruption leaves no artefact that was
    made from a deleted one.

    Embeddings are deleted only when `embed` itself is to be redone: that stage reuses those whose texts are unchanged.

    Raises:
        WorkspaceError: the workspace borrows what would be deleted.
    """
    again = and_later(stage)
    names = [name for each in again for name in each.artifacts if each is stage or each is not EMBED]
    workspace.require_own(names)
    if TRAIN in again:
        (workspace.folder / "checkpoints").delete()
    for name in reversed(names):
        workspace.artifact(name).clear()


def run_stages(
    config: Config, workspace: Workspace, stages: Sequence[Stage], show: Listener, again: Stage | None = None
) -> dict[Stage, Summary]:
    """Run the stages one after the other; what is committed already is skipped.

    Emits how each stage starts and ends, and the artefacts that it has made; the stages emit the rest.

    Args:
        show: gets all events, beside the listeners of `driver_listener`.
        again: this stage and all later ones are redone. Their artefacts are deleted when this stage's turn comes: not
            before the stages in front of it have accepted the configuration.

    Returns:
        The summary of each stage that had something to do.

    Raises:
        ConfigError: `again` is none of the stages.
        OwnershipError: another process works in the workspace.
        ResourceError: the machines of the cluster cannot all reach the workspace, or cannot hold a stage, or promise
            GPUs that torch does not find.
    """
    require_among(stages, again)
    summaries: dict[Stage, Summary | None] = {}
    with (
        own(workspace, lambda message: show(StageWarning(stages[0].name, message))) as heartbeat,
        History(config, workspace.guarded(heartbeat.guard), heartbeat) as history,
        connected(config.ray),
    ):
        workspace = history.workspace
        require_shared(workspace)
        require_room(config, workspace, stages, again)
        require_gpus(config, workspace, stages, again)
        with driver_listener(config, workspace, history, show) as listen:
            for _, on_the_same in groupby(stages, key=lambda stage: stage.resources):
                with keeping_ranks():
                    for stage in on_the_same:
                        summaries[stage] = _run_stage(stage, stage is again, config, workspace, history, listen)
    return {stage: summary for stage, summary in summaries.items() if summary is not None}


def _run_stage(
    stage: Stage, again: bool, config: Config, workspace: Workspace, history: History, listen: Listener
) -> Summary | None:
    """Run one stage, and report its end last, after its artefacts; returns its summary, None where it did nothing."""
    if again or not stage.is_finished(workspace):
        history.begin()
    if again:
        redo(workspace, stage)
    listen(StageStarted(stage.name))
    if message := waiting(config, workspace, stage):
        listen(StageWarning(stage.name, message))
    try:
        summary = WORK[stage](config, workspace, listen)
    except OwnershipError:
        raise  # what happens in the workspace is reported by its new owner
    except BaseException as error:
        refuses = isinstance(error, StaleError | UnfinishedError) or _stands(stage, workspace)
        if refuses and not history.has_worked(stage.name):
            listen(StageRefused(stage.name))
        else:
            message = INTERRUPTED if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            listen(StageFailed(stage.name, message))
        raise
    for name in stage.artifacts:
        manifest = workspace.artifact(name).manifest()
        if manifest is not None:
            size = sum(file.bytes for file in manifest.files)
            listen(ArtifactCommitted(stage.name, name, manifest.rows, size, len(manifest.files)))
    listen(StageSkipped(stage.name) if summary is None else StageFinished(stage.name, summary))
    return summary


def _stands(stage: Stage, workspace: Workspace) -> bool:
    """Tell whether what a stage made earlier is still there."""
    try:
        return stage.is_finished(workspace)
    except (AlphafuseError, OSError):
        return False
