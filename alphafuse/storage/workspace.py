"""The workspace, the folder of a run: its artefacts, the stage of each, and those borrowed from other workspaces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from alphafuse.errors import WorkspaceError
from alphafuse.stages import ARTIFACTS
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.manifest import Manifest, is_fingerprint, plain_name, read_json_object
from alphafuse.storage.ownership import Guard
from alphafuse.storage.redo import Redo

BORROWED = "borrowed.json"
CONFIG = "config.yaml"
"""Configuration of the latest run."""


class Workspace:
    """The folder of one run, on any storage. Picklable.

    Layout: one folder per artefact (see `alphafuse.stages`), `checkpoints/` (unfinished training),
    `events/` (one JSON-lines file per stage), `logs/` and `config.yaml`. Artefacts that `borrowed.json` names are in
    other workspaces, which several runs share. Artefacts that are made again lie in `redo/` until the run has ended:
    its owner sees these, all others the old ones.

    Args:
        uri: folder or URI.
        guard: keeps artefacts from being changed when another process has taken the workspace over, and makes this the
            owner's view; None: reads alone, or nobody else can write.

    Attributes:
        redo: artefacts that are made again.

    A damaged `borrowed.json` is an error as soon as an artefact is asked for, and not before, so that `borrow` can
    replace it.
    """

    def __init__(self, uri: str, guard: Guard | None = None) -> None:
        self.folder = Folder(resolve(uri))  # absolute, since workers have another current folder
        self.guard = guard
        self.redo = Redo(self.folder, guard)
        self._owners: dict[str, str] = {}
        self._damage = ""  # what is wrong with `borrowed.json`
        if self.folder.exists(BORROWED):
            try:
                self._owners = _checked(read_json_object(self.folder.read_bytes(BORROWED)))
            except (IsADirectoryError, ValueError) as error:
                self._damage = str(error)

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

    def other(self, uri: str) -> Workspace:
        """Another workspace, to read from."""
        return Workspace(uri)

    @property
    def borrowed(self) -> Mapping[str, str]:
        """The borrowed artefacts, each with its workspace (see `borrow`).

        Raises:
            WorkspaceError: `borrowed.json` is damaged.
        """
        if self._damage:
            raise WorkspaceError(
                f"{self.folder.uri}/{BORROWED} cannot be used: {self._damage}.",
                "`alphafuse verify CONFIG --repair` writes it again, as does `alphafuse compare GRID`",
            )
        return self._owners

    def artifact(self, name: str) -> Artifact:
        owner = self.borrowed.get(name)
        if owner is None:
            return Artifact(self.redo.place(name), name, ARTIFACTS[name].name, self.guard)
        folder = Folder(resolve(owner, self.folder.uri)) / name
        return Artifact(folder, name, ARTIFACTS[name].name, self.guard, borrower=self.folder.uri)

    def redone(self) -> list[Artifact]:
        """The artefacts that are made again, as far as they are."""
        again = self.redo.pending
        return [Artifact(self.redo.folder / name, name, ARTIFACTS[name].name, self.guard) for name in again]

    def successor(self, name: str) -> Artifact:
        """The artefact, empty, to be made again; by the owner beside the one that is there until `redo.take`."""
        if self.guard is not None and self.artifact(name).manifest() is not None:
            self.redo.begin([name], reusing=())
        artifact = self.artifact(name)
        artifact.clear()
        return artifact

    @property
    def checkpoints(self) -> Folder:
        """The folder of the checkpoints of an unfinished training."""
        return self.redo.checkpoints

    def borrows(self, name: str) -> bool:
        """True if an artefact belongs to another workspace."""
        return name in self.borrowed

    def borrow(self, owners: Mapping[str, str]) -> None:
        """Read artefacts from other workspaces, from now on and whenever this workspace is opened. They are never
        written from here.

        Args:
            owners: artefact → workspace, relative to the folder of this one, so that all of them can move together:
                `../NAME` or `../FOLDER/NAME`.
        """
        if self._damage or dict(owners) != self._owners:
            self._owners, self._damage = _checked(owners), ""
            self.folder.write_bytes(BORROWED, json.dumps(owners, indent=1).encode())

    def require_origins(self, name: str) -> None:
        """Check that the artefacts that an artefact was made from are those of this workspace.

        Raises:
            StaleError: one is another.
            WorkspaceError: an artefact is not finished.
        """
        artifact = self.artifact(name)
        for origin, fingerprint in origins_of(artifact.require()).items():
            if self.artifact(origin).require().fingerprint != fingerprint:
                raise artifact.mismatch([f"another {origin}"])

    def require_own(self, names: Iterable[str]) -> None:
        """Check that artefacts may be deleted.

        Raises:
            WorkspaceError: an artefact is borrowed, so that other runs may need it.
        """
        for name in names:
            self.artifact(name).require_own()


def origins_of(manifest: Manifest) -> dict[str, str]:
    """Fingerprints of the artefacts that an artefact was made from, by their names."""
    return {name: value for name, value in manifest.inputs.items() if name in ARTIFACTS and is_fingerprint(value)}


def _checked(owners: Mapping[str, object]) -> dict[str, str]:
    """The owners of borrowed artefacts, all of which lie beside the workspace or in a folder beside it.

    Raises:
        ValueError: a name is not that of an artefact, or a path leads elsewhere.
    """
    for name, owner in owners.items():
        if name not in ARTIFACTS:
            raise ValueError(f"there is no artefact {name!r}")
        up, *inside = owner.split("/") if isinstance(owner, str) else ("",)
        if up != ".." or not inside:
            raise ValueError(f"{owner!r} is not a workspace in the folder of this one, such as ../shared/NAME")
        for part in inside:
            plain_name(part)
    return {name: str(owner) for name, owner in owners.items()}
