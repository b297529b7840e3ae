"""Before a run begins: whether the cluster can hold each of its stages, rather than hours later, at its turn."""

from __future__ import annotations

from collections.abc import Sequence

from alphafuse.config import Config
from alphafuse.workspace import ARTIFACT_STAGES, Workspace
from jobs.placement import require_places, task_slots


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


def _is_finished(workspace: Workspace, stage: str) -> bool:
    return all(
        workspace.artifact(name).manifest() is not None for name, maker in ARTIFACT_STAGES.items() if maker == stage
    )


def _require(config: Config, stage: str) -> None:
    embed, decompose, train = config.embed, config.decompose, config.train
    if stage == "prepare":
        task_slots("data", config.data.pool)
    elif stage == "embed" and embed.engine == "precomputed":
        task_slots("embed")
    elif stage == "embed":
        require_places("embed", embed.workers, embed.cpus_per_worker, embed.gpus_per_worker, embed.pool)
    elif stage == "decompose":
        require_places("decompose", decompose.workers, decompose.cpus_per_worker, pool=decompose.pool)
    elif stage != "report":
        require_places("train", train.workers, train.cpus_per_worker, train.gpus_per_worker, train.pool)
