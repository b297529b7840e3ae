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
from alphafuse.parent import check_parent
from alphafuse.registry.version_registry import Registry
from alphafuse.stages import (
    DECOMPOSE,
    EMBED,
    EVALUATE,
    EXPORT,
    PREPARE,
    RECOMMEND,
    REPORT,
    STAGES,
    TRAIN,
    Stage,
    and_later,
    require_among,
)
from alphafuse.storage.filesystem.exclusive import require_create
from alphafuse.storage.workspace import Workspace
from jobs.execution.placement import require_shared
from jobs.execution.ray_connection import connected
from jobs.execution.reporting.driver_events import driver_listener
from jobs.execution.reporting.history import History
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
    """Make the artefacts of a stage and of all later ones again from now on, beside those that are there (see
    `alphafuse.storage.redo`).

    New embeddings take over the vectors of texts that are unchanged, unless `embed` itself is to be redone.

    Raises:
        WorkspaceError: the workspace borrows what would be replaced.
    """
    names = [name for each in and_later(stage) for name in each.artifacts]
    workspace.require_own(names)
    workspace.redo.begin(names, reusing=EMBED.artifacts if STAGES.index(stage) < STAGES.index(EMBED) else ())


def run_stages(
    config: Config, workspace: Workspace, stages: Sequence[Stage], show: Listener, again: Stage | None = None
) -> dict[Stage, Summary]:
    """Run the stages one after the other; what is committed already is skipped. A whole run is added to the registry.

    Emits how each stage starts and ends, and the artefacts that it has made; the stages emit the rest.

    Args:
        show: gets all events, beside the listeners of `driver_listener`.
        again: this stage and all later ones are redone, beside what is there; this begins at the stage's turn, when
            the stages in front of it have accepted the configuration. New artefacts replace the old ones at the end of
            the run, all at once; a run that fails or is stopped before that leaves them to the next run.

    Returns:
        The summary of each stage that had something to do.

    Raises:
        ConfigError: `again` is none of the stages.
        OwnershipError: another process works in the workspace.
        ResourceError: the machines of the cluster cannot all reach the workspace, or cannot hold a stage, or promise
            GPUs that torch does not find.
        MissingPackageError: the export, or the storage of the registry, needs a package that is not installed.

    Also raises as `check_parent` does, before anything runs, where a model is to be trained.
    """
    require_among(stages, again)
    if TRAIN in stages and (again is not None or not TRAIN.is_finished(workspace)):
        check_parent(config, workspace)
    if EXPORT in stages:
        export.require_packages(config)
    versions = Registry(config.registry) if config.registry is not None and {EXPORT, REPORT} <= {*stages} else None
    if versions is not None:
        require_create(versions.folder)
    summaries: dict[Stage, Summary | None] = {}
    with (
        own(workspace, lambda message: show(StageWarning(stages[0].name, message))) as heartbeat,
        History(config, workspace.guarded(heartbeat.guard), heartbeat) as history,
        connected(config.ray),
    ):
        workspace = history.workspace
        require_shared(workspace)
        workspace.redo.finish_taking()
        require_room(config, workspace, stages, again)
        require_gpus(config, workspace, stages, again)
        with driver_listener(config, workspace, history, show) as listen:
            if again is None and workspace.redo.pending:
                listen(StageWarning(stages[0].name, _continued(workspace)))
            for _, on_the_same in groupby(stages, key=lambda stage: stage.resources):
                with keeping_ranks():
                    for stage in on_the_same:
                        summaries[stage] = _run_stage(stage, stage is again, config, workspace, history, listen)
            if workspace.redo.pending:
                workspace.redo.take()
    if versions is not None:
        versions.add(Workspace(workspace.folder.uri))
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


def _continued(workspace: Workspace) -> str:
    return (
        f"this run goes on with what --redo began: {', '.join(workspace.redo.pending)}. The old ones are in use until "
        f"it has ended, and stay if {workspace.redo.folder.uri} is deleted before"
    )


def _stands(stage: Stage, workspace: Workspace) -> bool:
    """Tell whether what a stage made earlier is still there."""
    try:
        return stage.is_finished(workspace)
    except (AlphafuseError, OSError):
        return False
