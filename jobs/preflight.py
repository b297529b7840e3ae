"""Before a run begins: whether the cluster can hold each of its stages, rather than hours later, at its turn."""

from __future__ import annotations

from collections.abc import Sequence

from alphafuse.config import Config
from alphafuse.storage.workspace import ARTIFACT_STAGES, Workspace
from jobs.execution.placement import missing_places, require_places, task_slots


def require_room(config: Config, workspace: Workspace, stages: Sequence[str], again: str | None) -> None:
    """Check every stage that has something to do; one that is finished may have needed machines that are gone.

    Args:
        again: this stage and all later ones are redone.

    Raises:
        ResourceError: the cluster cannot hold a stage, even when it has grown.
    """
    first_again = len(stages) if again is None else stages.index(again)
    for number, stage in enumerate(stages):
        if number >= first_again or not _is_finished(workspace, stage):
            _require(config, stage)


def waiting(config: Config, workspace: Workspace, stage: str) -> str | None:
    """What to tell a user whose cluster must grow before all workers of a stage have a place; None where it need not,
    or where the stage has nothing to do."""
    if stage == "report" or _is_finished(workspace, stage):
        return None
    if _reads_files(config, stage):
        section, pool = _files(config, stage)
        return missing_places(section, 1, 1, pool=pool)
    return missing_places(*_workers(config, stage))


def _require(config: Config, stage: str) -> None:
    if stage == "report":
        return
    if _reads_files(config, stage):
        task_slots(*_files(config, stage))
    else:
        require_places(*_workers(config, stage))


def _reads_files(config: Config, stage: str) -> bool:
    """Whether a stage is made of tasks of one CPU each, as many as there is room for."""
    return stage == "prepare" or (stage == "embed" and config.embed.engine == "precomputed")


def _files(config: Config, stage: str) -> tuple[str, str | None]:
    """Section and pool of the tasks of such a stage."""
    return ("data", config.data.pool) if stage == "prepare" else ("embed", None)


def _workers(config: Config, stage: str) -> tuple[str, int, float, float, str | None]:
    """Section, workers (the fewest that it runs with), CPUs and GPUs of each, and pool of any other stage."""
    embed, decompose, train = config.embed, config.decompose, config.train
    if stage == "embed":
        return "embed", embed.workers, embed.cpus_per_worker, embed.gpus_per_worker, embed.pool
    if stage == "decompose":
        return "decompose", decompose.workers, decompose.cpus_per_worker, 0, decompose.pool
    return "train", train.fewest_workers, train.cpus_per_worker, train.gpus_per_worker, train.pool


def _is_finished(workspace: Workspace, stage: str) -> bool:
    return all(
        workspace.artifact(name).manifest() is not None for name, maker in ARTIFACT_STAGES.items() if maker == stage
    )
