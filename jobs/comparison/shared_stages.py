"""Stages that runs share: prepare, embed and decompose, each made once for all runs that have the same settings.

Every such stage has a workspace of its own, named by its settings and those of the stages before it; later stages,
and the runs, borrow its artefacts (docs/workspace.md). `shared_making` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alphafuse.config import Config
from alphafuse.errors import WorkspaceError
from alphafuse.stages import Stage, needed_stages
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.manifest import MANIFEST, fingerprint
from alphafuse.storage.verification import Finding
from alphafuse.storage.workspace import BORROWED, Workspace

FOLDER = "shared"


@dataclass(frozen=True)
class SharedStage:
    """One stage with its workspace.

    Attributes:
        stage: the stage.
        folder: folder of its workspace, inside of `shared/`.
        before: folders of the stages that it builds upon, by the artefacts they make.
    """

    stage: Stage
    folder: str
    before: tuple[tuple[str, str], ...]

    @property
    def artifacts(self) -> tuple[tuple[str, str], ...]:
        """Folders by artefact, with those of this stage."""
        return *self.before, *((name, self.folder) for name in self.stage.artifacts)


def shared_stages(config: Config) -> list[SharedStage]:
    """The stages that a run needs before its training, in their order."""
    stages: list[SharedStage] = []
    for stage in needed_stages(config):
        if not stage.is_shared:
            continue
        before = stages[-1] if stages else None
        made_from = {"settings": stage.settings(config), "before": None if before is None else before.folder}
        folder = f"{stage.name}-{fingerprint(made_from)[:12]}"
        stages.append(SharedStage(stage, folder, before.artifacts if before else ()))
    return stages


def borrow(workspace: Workspace, config: Config) -> None:
    """Let a run, whose folder lies beside `shared/`, read what was made for it."""
    workspace.borrow(_owners(config))


@dataclass(frozen=True)
class BorrowedFile:
    """A damaged or lost `borrowed.json`.

    Attributes:
        owners: what it should hold; None: not known.
    """

    workspace: Workspace
    finding: Finding
    owners: Mapping[str, str] | None

    def repair(self) -> None:
        """Write the file.

        Raises:
            WorkspaceError: what it held is not known.
        """
        if self.owners is None:
            raise WorkspaceError(
                f"{self.workspace.folder.uri}/{BORROWED} is damaged, and ../{FOLDER} has not what the run needs.",
                "`alphafuse compare GRID` writes it again",
            )
        self.workspace.borrow(self.owners)


def examine_borrowed(workspace: Workspace, config: Config) -> BorrowedFile | None:
    """Compare `borrowed.json` of a run with the shared stages that its configuration needs; None: nothing is wrong."""
    owners = _owners(config)
    beside = Folder(resolve("..", workspace.folder.uri))
    found = all((beside / owner.removeprefix("../") / name / MANIFEST).exists() for name, owner in owners.items())
    try:
        borrowed = workspace.borrowed
    except WorkspaceError as error:
        return BorrowedFile(workspace, Finding(BORROWED, error.fault, "repair", "restored"), owners if found else None)
    lost = not borrowed and not any(workspace.artifact(name).folder.names() for name in owners)
    if found and (lost or (borrowed and borrowed.keys() == owners.keys() and borrowed != owners)):
        fault = "it does not name the shared stages of this configuration"
        return BorrowedFile(workspace, Finding(BORROWED, fault, "repair", "restored"), owners)
    return None


def _owners(config: Config) -> dict[str, str]:
    """The artefacts that a run borrows, each with its workspace."""
    return {name: f"../{FOLDER}/{folder}" for name, folder in shared_stages(config)[-1].artifacts}
