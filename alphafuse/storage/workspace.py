"""The workspace, the folder of a run: its artefacts, the stage of each, and those borrowed from other workspaces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from alphafuse.errors import WorkspaceError
from alphafuse.stages import ARTIFACTS
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.folder import Folder, resolve
from alphafuse.storage.ownership import Guard

BORROWED = "borrowed.json"


class Workspace:
    """The folder of one run, on any storage. Picklable.

    Layout: one folder per artefact (see `alphafuse.stages`), `checkpoints/` (unfinished training),
    `events/` (one JSON-lines file per stage), `logs/` and `config.yaml`. Artefacts that `borrowed.json` names are in
    other workspaces, which several runs share.

    Args:
        uri: folder or URI.
        guard: keeps artefacts from being changed when another process has taken the workspace over; None: reads alone,
            or nobody else can write.
    """

    def __init__(self, uri: str, guard: Guard | None = None) -> None:
        self.folder = Folder(resolve(uri))  # absolute, since workers have another current folder
        self.guard = guard
        self._borrowed: dict[str, str] = {}
        if self.folder.exists(BORROWED):
            self._borrowed = json.loads(self.folder.read_bytes(BORROWED))

    @property
    def name(self) -> str:
        """Name of the folder, which serves as the name of the run."""
        return self.folder.uri.rstrip("/").rsplit("/", 1)[-1]

    @property
    def events(self) -> Folder:
        """The folder of the event log and of the heartbeat."""
        return self.folder / "events"

    def guarded(self, guard: Guard) -> Workspace:
        """The workspace as its owner writes to it: every artefact asks the guard before it is changed."""
        return Workspace(self.folder.uri, guard)

    def artifact(self, name: str) -> Artifact:
        owner = Folder(resolve(self._borrowed[name], self.folder.uri)) if name in self._borrowed else self.folder
        return Artifact(owner / name, name, ARTIFACTS[name].name, self.guard)

    def borrows(self, name: str) -> bool:
        """True if an artefact belongs to another workspace."""
        return name in self._borrowed

    def repair(self, name: str) -> list[str]:
        """Delete the damaged files of an artefact (see `Artifact.repair`); returns their names.

        Raises:
            WorkspaceError: files of a borrowed artefact are damaged; only the workspace that owns it can repair it.
        """
        artifact = self.artifact(name)
        if name not in self._borrowed:
            return artifact.repair()
        artifact.verify()
        return []

    def borrow(self, owners: Mapping[str, str]) -> None:
        """Read artefacts from other workspaces, from now on and whenever this workspace is opened.

        Args:
            owners: artefact → workspace, relative to the folder of this one, so that all of them can move together.
        """
        if dict(owners) != self._borrowed:
            self.folder.write_bytes(BORROWED, json.dumps(owners, indent=1).encode())
            self._borrowed = dict(owners)

    def require_own(self, names: Iterable[str]) -> None:
        """Check that artefacts may be deleted.

        Raises:
            WorkspaceError: an artefact is borrowed, so that other runs may need it.
        """
        for name in names:
            if name in self._borrowed:
                raise WorkspaceError(
                    f"{self.folder.uri} borrows {name!r} from {self.artifact(name).folder.uri}, as other runs may: it "
                    "is not made again from here. Give another `workspace`"
                )
