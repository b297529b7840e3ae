"""A registry: a folder, on any storage, that names the versions of a model and says which one serves.

It holds small files alone (docs/operations.md): `versions/v0007.json` describes a finished workspace, and
`aliases/000000012.json` says which versions are production, candidate and previous. No file is ever changed or
replaced. The models themselves stay in their workspaces.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace

from alphafuse.errors import WorkspaceError
from alphafuse.registry.aliases import NAMES, Aliases, change_aliases, read_aliases
from alphafuse.registry.version import Version, describe, is_version_id, read_version, version_to_bytes
from alphafuse.storage.filesystem.exclusive import create
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.workspace import Workspace

FOLDERS = ("versions", "aliases")
"""The folders of a registry."""


class Registry:
    """The versions of a model.

    Args:
        uri: folder or URI; nothing needs to be there before the first version is added.
    """

    def __init__(self, uri: str) -> None:
        self.folder = Folder(resolve(uri))
        self._versions, self._aliases = (self.folder / name for name in FOLDERS)

    def aliases(self) -> Aliases:
        """All aliases at once.

        Raises:
            WorkspaceError: their file is damaged.
        """
        return read_aliases(self._aliases)

    def alias(self, name: str) -> str | None:
        """The id of the version that an alias stands for: `production`, `candidate` or `previous`. None if there is
        none.

        Raises:
            WorkspaceError: there is no such alias, or the file of the aliases is damaged.
        """
        if name not in NAMES:
            raise WorkspaceError(f"there is no alias {name!r}", f"Aliases: {', '.join(NAMES)}")
        version: str | None = getattr(self.aliases(), name)
        return version

    def ids(self) -> list[str]:
        """Ids of all versions, removed ones included, oldest first."""
        names = (name.removesuffix(".json") for name in self._versions.names() if name.endswith(".json"))
        return sorted(filter(is_version_id, names), key=lambda name: int(name[1:]))

    def version(self, name: str) -> Version:
        """A version by its id or its alias.

        Raises:
            WorkspaceError: there is no such version, or its file is damaged.
        """
        version_id = self.alias(name) if name in NAMES else name
        if version_id is None:
            raise WorkspaceError(
                f"no version of {self.folder.uri} is the {name}.",
                "`alphafuse models list` shows all with their aliases",
            )
        path = f"{version_id}.json"
        try:
            if not is_version_id(version_id):
                raise FileNotFoundError(path)
            version = read_version(self._versions.read_bytes(path))
            if version.id != version_id:
                raise ValueError(f"it is the file of {version.id!r}")
        except FileNotFoundError as error:
            known = ", ".join(self.ids()[-5:]) or "none yet"
            raise WorkspaceError(
                f"{self.folder.uri} has no version {name!r} (the latest: {known}).",
                "`alphafuse models list` shows all, `alphafuse models add WORKSPACE` adds one",
            ) from error
        except (IsADirectoryError, ValueError) as error:
            raise WorkspaceError(
                f"{self._versions.uri}/{path} cannot be used: {error}.",
                "Put it back from a copy of the registry, or delete it and add its workspace again: "
                "`alphafuse models add WORKSPACE`",
            ) from error
        return replace(version, workspace=_absolute(version.workspace, self.folder.uri))

    def kept(self, name: str) -> Version:
        """A version by its id or its alias, as `version`, which must not have been removed.

        Raises:
            WorkspaceError: it was, there is no such version, or its file is damaged.
        """
        version = self.version(name)
        _require_kept(self.aliases(), version.id)
        return version

    def versions(self) -> list[Version]:
        """All versions, removed ones included, oldest first. Raises as `version` does."""
        return [self.version(name) for name in self.ids()]

    def add(self, workspace: Workspace) -> Version:
        """Add a finished workspace as a version, and make it the candidate. A workspace that is a version already, with
        the same export, is not added again.

        Raises:
            UnfinishedError: the workspace has no finished export.
            StaleError: its export or its evaluation are not those of its model.
            WorkspaceError: a file is damaged.
        """
        described, aliases = describe("", workspace), self.aliases()
        known = (each for each in reversed(self.versions()) if each.id not in aliases.removed)
        version = next((each for each in known if _is_same(each, described)), None) or self._create(described)

        def offer(held: Aliases) -> Aliases:
            return held if version.id in held.named() else replace(held, candidate=version.id)

        change_aliases(self._aliases, f"add {version.id}", offer)
        return version

    def promote(self, version_id: str, instead_of: str | None) -> Aliases:
        """Let a version serve. The one that serves until then becomes the previous one.

        Args:
            instead_of: id of the version that it was compared with; None if none served.

        Raises:
            WorkspaceError: another version serves by now, or this one was removed or its export is not there.
        """
        version = self.kept(version_id)
        version.require_whole()

        def serve(held: Aliases) -> Aliases:
            if held.production == version.id:
                return held
            if held.production != instead_of:
                raise WorkspaceError(
                    f"{held.production} serves by now, and not {instead_of}, which {version.id} was compared with.",
                    "Compare again: the same command",
                )
            _require_kept(held, version.id)
            candidate = None if held.candidate == version.id else held.candidate
            return replace(held, production=version.id, previous=held.production, candidate=candidate)

        return change_aliases(self._aliases, f"promote {version.id}", serve)

    def rollback(self) -> Aliases:
        """Let the previous version serve again. Trains and compares nothing.

        Raises:
            WorkspaceError: there is no previous version, or its export is not there.
        """

        def serve_previous(held: Aliases) -> Aliases:
            if held.previous is None:
                raise WorkspaceError(
                    f"{self.folder.uri} has no previous version to go back to.",
                    "`alphafuse models promote VERSION` lets any other one serve",
                )
            self.version(held.previous).require_whole()
            return replace(held, production=held.previous, previous=None)

        held = self.aliases()
        return change_aliases(self._aliases, f"rollback from {held.production}", serve_previous)

    def give_up(self, version_ids: set[str]) -> set[str]:
        """Note that versions are removed: no alias may name them from then on. Returns those that are, without the ones
        that have an alias by now."""

        def remove(held: Aliases) -> Aliases:
            removed = {*held.removed, *(version_ids - held.named())}
            return replace(held, removed=tuple(sorted(removed, key=lambda name: int(name[1:]))))

        if not version_ids:
            return set()
        return {*change_aliases(self._aliases, "gc", remove).removed} & version_ids

    def _create(self, described: Version) -> Version:
        """Write the file of a new version under the next free id."""
        number = max((int(name[1:]) for name in self.ids()), default=0)
        stored = replace(described, workspace=_relative(described.workspace, self.folder.uri))
        while True:
            number += 1
            version_id = f"v{number:04d}"
            if create(self._versions, f"{version_id}.json", version_to_bytes(replace(stored, id=version_id))):
                return replace(described, id=version_id)


def _require_kept(held: Aliases, version_id: str) -> None:
    if version_id in held.removed:
        raise WorkspaceError(
            f"version {version_id} was removed by `alphafuse models gc`.", "`alphafuse models list` shows what is left"
        )


def _is_same(one: Version, other: Version) -> bool:
    return (one.workspace, one.fingerprint, one.metrics) == (other.workspace, other.fingerprint, other.metrics)


def _relative(workspace: str, registry: str) -> str:
    """A workspace beside the registry as `../NAME`, so that both can move together; any other one as it is."""
    folder, _, name = workspace.rstrip("/").rpartition("/")
    return f"../{name}" if folder == registry.rstrip("/").rpartition("/")[0] else workspace


def _absolute(workspace: str, registry: str) -> str:
    if not workspace.startswith("../"):
        return workspace
    return f"{registry.rstrip('/').rpartition('/')[0]}/{posixpath.basename(workspace)}"
