"""What several runs need alike: prepare, embed and decompose, each made once for all runs that have the same settings.

Every such stage has a workspace of its own, named by its settings and those of the stages before it; those after it,
and the runs, borrow its artefacts (docs/workspace.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alphafuse.config import Config
from alphafuse.errors import StaleError
from alphafuse.events import Listener, StageFailed
from alphafuse.storage.artifact import fingerprint
from alphafuse.storage.folder import Folder
from alphafuse.storage.workspace import ARTIFACT_STAGES, Workspace
from jobs.comparison.shown_events import OfSharedStage
from jobs.execution.tasks import reason
from jobs.pipeline import needed_stages, run_stages

FOLDER = "shared"

# What changes where and how fast a stage runs, but not what it makes.
RESOURCE_KEYS = {
    "prepare": {"pool"},
    "embed": {"workers", "cpus_per_worker", "gpus_per_worker", "pool", "batch_size", "max_quarantined"},
    "decompose": {"workers", "cpus_per_worker", "pool"},
}


@dataclass(frozen=True)
class SharedStage:
    """One stage with its workspace.

    Attributes:
        stage: its name.
        folder: of its workspace, inside of `shared/`.
        before: folders of the stages that it builds upon, by the artefacts they make.
    """

    stage: str
    folder: str
    before: tuple[tuple[str, str], ...]

    @property
    def artifacts(self) -> tuple[tuple[str, str], ...]:
        """Folders by artefact, with those of this stage."""
        return *self.before, *((name, self.folder) for name, maker in ARTIFACT_STAGES.items() if maker == self.stage)


def shared_stages(config: Config) -> list[SharedStage]:
    """The stages that a run needs before its training, in their order."""
    stages: list[SharedStage] = []
    for stage in needed_stages(config, "decompose"):
        before = stages[-1] if stages else None
        made_from = {"settings": _settings(config, stage), "before": None if before is None else before.folder}
        folder = f"{stage}-{fingerprint(made_from)[:12]}"
        stages.append(SharedStage(stage, folder, before.artifacts if before else ()))
    return stages


def borrow(workspace: Workspace, config: Config) -> None:
    """Let a run, whose folder lies beside `shared/`, read what was made for it."""
    workspace.borrow({name: f"../{FOLDER}/{folder}" for name, folder in shared_stages(config)[-1].artifacts})


def make_shared(configs: Iterable[Config], folder: Folder, listen: Listener) -> dict[str, str]:
    """Run the shared stages of all configurations that are not done yet, one after the other.

    Returns:
        What went wrong, by the folder of the stage; what builds upon a stage that failed is not tried.
    """
    failed: dict[str, str] = {}
    tried: set[str] = set()
    for config in configs:
        for shared in shared_stages(config):
            broken = [name for _, name in shared.before if name in failed]
            if shared.folder in tried or broken:
                continue
            tried.add(shared.folder)
            workspace = Workspace((folder / FOLDER / shared.folder).uri)
            workspace.borrow({name: f"../{owner}" for name, owner in shared.before})
            try:
                _make(config, workspace, shared.stage, listen)
            except Exception as error:
                message = reason(error)
                failed[shared.folder] = f"{shared.stage}: {message}"
                listen(StageFailed(shared.stage, message))
    return failed


def _make(config: Config, workspace: Workspace, stage: str, listen: Listener) -> None:
    try:
        run_stages(config, workspace, [stage], OfSharedStage(listen))
    except StaleError as error:  # with equal settings: the files that it reads are others
        raise StaleError(error.fault, "Give the grid another `workspace`") from error


def _settings(config: Config, stage: str) -> dict[str, Any]:
    """What the stage is made from, beside the stages before it."""
    if stage == "prepare":
        return config.data.model_dump(mode="json", exclude=RESOURCE_KEYS["prepare"])
    settings = getattr(config, stage).model_dump(mode="json", exclude=RESOURCE_KEYS[stage])
    return settings | {"directions": config.directions} if stage == "decompose" else settings
