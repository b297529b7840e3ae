"""Runs stages in their order on one connection to Ray, and makes them again when asked."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import yaml

from alphafuse.config import Config
from alphafuse.errors import ConfigError, StaleError
from alphafuse.events import (
    INTERRUPTED,
    ArtifactCommitted,
    Listener,
    StageFailed,
    StageFinished,
    StageSkipped,
    StageStarted,
    StageWarning,
    Summary,
)
from alphafuse.storage.workspace import ARTIFACT_STAGES, Workspace
from jobs.execution.driver_events import driver_listener
from jobs.execution.placement import require_shared
from jobs.execution.ray_connection import connected
from jobs.preflight import require_room, waiting
from monitoring.run_log.heartbeat import Heartbeat

CONFIG = "config.yaml"
STAGES = tuple(dict.fromkeys(ARTIFACT_STAGES.values()))
"""All stages, in their order; each is the module `jobs.STAGE` with a function `run`."""


def needed_stages(config: Config, until: str | None = None) -> list[str]:
    """The stages of a whole run, up to and including `until`. The work on texts that the model does not need is
    left out.

    Raises:
        ConfigError: there is no stage `until`.
    """
    last = STAGES[-1] if until is None else until
    read = {ARTIFACT_STAGES[name] for name in config.model.encoder.reads}
    needed = read | {"embed"} if read else read
    texts = {"embed", "decompose"}
    return [stage for stage in STAGES[: _position(last) + 1] if stage not in texts or stage in needed]


def redo(workspace: Workspace, stage: str) -> None:
    """Delete what a stage and all later ones have made, the latest first: an interruption leaves nothing that was made
    from what is gone.

    Embeddings go only when `embed` itself is to be redone: by the content of the texts, that stage tells which
    of them still hold.

    Raises:
        ConfigError: there is no such stage.
        WorkspaceError: the workspace borrows what would be deleted.
    """
    first = _position(stage)
    names = [
        name
        for name, maker in ARTIFACT_STAGES.items()
        if STAGES.index(maker) >= first and (name != "embeddings" or stage == "embed")
    ]
    workspace.require_own(names)
    if first <= STAGES.index("train"):
        (workspace.folder / "checkpoints").delete()
    for name in reversed(names):
        workspace.artifact(name).clear()


def run_stages(
    config: Config, workspace: Workspace, stages: Sequence[str], show: Listener, again: str | None = None
) -> dict[str, Summary]:
    """Run the stages one after the other; what is committed already is skipped.

    Emits how each stage starts and ends, and the artefacts that it has made; the stages emit the rest.

    Args:
        show: gets all events, beside those who always do (`driver_listener`).
        again: this stage and all later ones are redone. What they made goes when its turn comes: not before the
            stages in front of it have accepted the configuration.

    Returns:
        The summary of each stage that had something to do.

    Raises:
        ConfigError: `again` is none of the stages.
        ResourceError: the machines of the cluster cannot all reach the workspace, or cannot hold a stage.
    """
    require_among(stages, again)
    summaries = {}
    with connected(config.ray):
        require_shared(workspace)
        require_room(config, workspace, stages, again)
        with (
            _configured(config, workspace),
            Heartbeat(workspace),
            driver_listener(config, workspace, show) as listen,
        ):
            for stage in stages:
                if stage == again:
                    redo(workspace, stage)
                summary = _run_stage(stage, config, workspace, listen)
                if summary is not None:
                    summaries[stage] = summary
    return summaries


@contextmanager
def _configured(config: Config, workspace: Workspace) -> Iterator[None]:
    """Write `config.yaml`, which tells what the workspace is made with: where a stage refuses the configuration, the
    file is what it was before."""
    folder = workspace.folder
    before = folder.read_bytes(CONFIG) if folder.exists(CONFIG) else None
    content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    folder.write_bytes(CONFIG, content.encode())
    try:
        yield
    except StaleError:
        if before is not None:
            folder.write_bytes(CONFIG, before)
        raise


def _run_stage(stage: str, config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Run one stage, and tell its end last, after its artefacts; returns its summary, None where there was none."""
    listen(StageStarted(stage))
    if message := waiting(config, workspace, stage):
        listen(StageWarning(stage, message))
    try:
        summary = importlib.import_module(f"jobs.stages.{stage}").run(config, workspace, listen)
    except BaseException as error:
        message = INTERRUPTED if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        listen(StageFailed(stage, message))
        raise
    for name, maker in ARTIFACT_STAGES.items():
        manifest = workspace.artifact(name).manifest() if maker == stage else None
        if manifest is not None:
            size = sum(file.bytes for file in manifest.files)
            listen(ArtifactCommitted(stage, name, manifest.rows, size, len(manifest.files)))
    listen(StageSkipped(stage) if summary is None else StageFinished(stage, summary))
    return summary


def require_among(stages: Sequence[str], again: str | None) -> None:
    """Check that what is to be redone, if anything is, is one of the stages that run.

    Raises:
        ConfigError: it is none of them, or no stage at all.
    """
    if again is not None:
        _position(again)
        if again not in stages:
            raise ConfigError(f"the stage {again!r} to be redone is none of those to run: {', '.join(stages)}")


def _position(stage: str) -> int:
    if stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}; stages: {', '.join(STAGES)}")
    return STAGES.index(stage)
