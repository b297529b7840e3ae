"""The run directory: which artefacts it holds, which stage makes each of them, and which it borrows from others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from alphafuse.errors import WorkspaceError
from alphafuse.stages import ARTIFACTS
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.folder import Folder, resolve

BORROWED = "borrowed.json"


class Workspace:
    """The folder of one run, on any storage. Picklable.

    Layout: one folder per artefact (see `alphafuse.stages`), `checkpoints/` (unfinished training),
    `events/` (one JSON-lines file per stage), `logs/` and `config.yaml`. Artefacts that `borrowed.json` names lie in
    other workspaces, which several runs share.
    """

    def __init__(self, uri: str) -> None:
        self.folder = Folder(resolve(uri))  # absolute: workers have another current folder
        self._borrowed: dict[str, str] = {}
        if self.folder.exists(BORROWED):
            self._borrowed = json.loads(self.folder.read_bytes(BORROWED))

    @property
    def name(self) -> str:
        """Of the folder, which a run is called by."""
        return self.folder.uri.rstrip("/").rsplit("/", 1)[-1]

    def artifact(self, name: str) -> Artifact:
        owner = Folder(resolve(self._borrowed[name], self.folder.uri)) if name in self._borrowed else self.folder
        return Artifact(owner / name, name, ARTIFACTS[name].name)

    def borrows(self, name: str) -> bool:
        """Whether an artefact was made by another workspace."""
        return name in self._borrowed

    def repair(self, name: str) -> list[str]:
        """Delete the damaged files of an artefact (see `Artifact.repair`); returns their names.

        Raises:
            WorkspaceError: files of a borrowed artefact are damaged: the workspace that owns it repairs it.
        """
        artifact = self.artifact(name)
        if name not in self._borrowed:
            return artifact.repair()
        artifact.verify()
        return []

    def borrow(self, owners: Mapping[str, str]) -> None:
        """Read artefacts from other workspaces from here on, and whenever this one is opened.

        Args:
            owners: artefact → workspace, relative to the folder of this one, so that all can be moved together.
        """
        if dict(owners) != self._borrowed:
            self.folder.write_bytes(BORROWED, json.dumps(owners, indent=1).encode())
            self._borrowed = dict(owners)

    def require_own(self, names: Iterable[str]) -> None:
        """Check that artefacts may be deleted.

        Raises:
            WorkspaceError: one is borrowed: other runs need it.
        """
        for name in names:
            if name in self._borrowed:
                raise WorkspaceError(
                    f"{self.folder.uri} borrows {name!r} from {self.artifact(name).folder.uri}, as other runs may: it "
                    "is not made again from here. Give another `workspace`"
                )
