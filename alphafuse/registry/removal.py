"""Removes old versions: deletes their workspaces, unless an alias or another workspace needs them.

First the registry notes that a version is given up, which no alias can name from then on; then its workspace is
deleted, the manifest of the export last. So an interrupted removal is continued by the next one, and a workspace that
somebody has made anew in the same place is told from what is left of an old one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from alphafuse.config.bounded_yaml import load_yaml
from alphafuse.errors import AlphafuseError, OwnershipError, WorkspaceError
from alphafuse.registry.version import EXPORT, Version
from alphafuse.registry.version_registry import Registry
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.manifest import MANIFEST, MANIFEST_COPY
from alphafuse.storage.ownership import read_beat
from alphafuse.storage.workspace import BORROWED, CONFIG, Workspace

EVENTS = "events"
Owning = Callable[[Workspace], AbstractContextManager[None]]


@dataclass(frozen=True)
class Removal:
    """Fate of a version that is older than those that are kept.

    Attributes:
        needed_by: why it stays; empty: it is removed.
    """

    version: Version
    needed_by: str


def remove_versions(registry: Registry, keep: int, dry_run: bool, owning: Owning) -> list[Removal]:
    """Delete the workspaces of all versions but the newest ones and those that are needed.

    Args:
        keep: number of the newest versions that stay, at least 1.
        dry_run: True changes nothing.
        owning: context in which no run works in a workspace; raises OwnershipError where one does.

    Returns:
        The versions that are old enough, oldest first; those whose workspaces are gone already are left out.
    """
    versions, aliases = registry.versions(), registry.aliases()
    left = [version for version in versions if version.id not in aliases.removed]
    stays = {version.id for version in left[-keep:]} | aliases.named()
    kept = [version for version in left if version.id in stays]
    old = [version for version in versions if version.id not in stays and _is_there(version)]
    fates = _fates(old, kept)
    if dry_run:
        return fates
    free = {each.version.id for each in fates if not each.needed_by}
    given_up = registry.give_up(free)
    # Asked again: what has begun to need a workspace since then finds it whole, though without a name.
    return [
        Removal(each.version, each.needed_by or _remove(each.version, owning))
        if each.version.id in given_up
        else Removal(each.version, each.needed_by or "it has been given an alias or is in use since")
        for each in _fates(old, kept)
    ]


def _is_there(version: Version) -> bool:
    """Tell whether a version's workspace, or what an interrupted removal has left of it, is there."""
    try:
        version.require_whole()
    except WorkspaceError:
        return False
    return True


def _fates(old: Iterable[Version], kept: Iterable[Version]) -> list[Removal]:
    old = list(old)
    uses = {_place(version.workspace): f"{version.id} lies in the same workspace" for version in kept}
    for neighbour in _neighbours([Folder(version.workspace) for version in old]):
        uses |= {_place(uri): f"{neighbour.uri} {use}" for uri, use in _uses(neighbour)}
    return [Removal(each, uses.get(_place(each.workspace), "") or _run_in(Workspace(each.workspace))) for each in old]


def _place(uri: str) -> str:
    """One name for a folder that is named in several ways: as a path, as file://…, or through a link."""
    path = uri.removeprefix("file://")
    return uri.rstrip("/") if "://" in path else os.path.realpath(path)


def _neighbours(folders: Iterable[Folder]) -> Iterator[Folder]:
    """Folders in which workspaces can lie that use the given ones: beside them, and beside the folders around them.
    Those that may not be read are left out."""
    around = {_around(folder) for folder in folders}
    for place in sorted(around | {_around(Folder(uri)) for uri in around}):
        if place and not place.endswith("/"):  # neither the root of a disk nor the list of all buckets
            inside = Folder(place)
            for name, size in inside.sizes().items():
                with suppress(PermissionError):
                    if size is None and (inside / name).names():
                        yield inside / name


def _around(folder: Folder) -> str:
    return folder.uri.rstrip("/").rpartition("/")[0]


def _uses(neighbour: Folder) -> Iterator[tuple[str, str]]:
    """Yield the workspaces that another one uses, each with the way in which it does."""
    if neighbour.exists(BORROWED):
        for owner in _borrowed(neighbour).values():
            yield resolve(owner, neighbour.uri), "borrows from it"
    if neighbour.exists(CONFIG) and not neighbour.exists(f"model/{MANIFEST}"):
        try:
            parent = load_yaml(neighbour.read_bytes(CONFIG), CONFIG)["update"]["parent"]
        except (AlphafuseError, OSError, KeyError, TypeError):
            return  # no configuration of a run
        if isinstance(parent, str):
            yield resolve(parent), "has begun to continue its model"


def _borrowed(neighbour: Folder) -> dict[str, str]:
    """The owners of what a workspace borrows.

    Raises:
        WorkspaceError: they cannot be read, so that nobody knows what may be deleted.
    """
    return dict(Workspace(neighbour.uri).borrowed)


def _run_in(workspace: Workspace) -> str:
    _, beat = read_beat(workspace.events)
    working = beat is not None and beat.is_of_this_machine and not (beat.ended or beat.is_dead)
    return f"it is in use by {beat.owner}" if working and beat is not None else ""


def _remove(version: Version, owning: Owning) -> str:
    """Delete the workspace of a version; returns why not, if a run works there."""
    folder = Folder(version.workspace)
    try:
        with owning(Workspace(version.workspace)):  # its heartbeat stays until the end of the block
            for name, size in folder.sizes().items():
                if size is not None:
                    folder.delete_files([name])
                elif name not in (EXPORT, EVENTS):
                    (folder / name).delete()
    except OwnershipError as error:
        return str(error)
    (folder / EVENTS).delete()
    export = folder / EXPORT
    for name, size in export.sizes().items():
        if size is None:
            (export / name).delete()
        elif name not in (MANIFEST, MANIFEST_COPY):
            export.delete_files([name])
    export.delete_files([MANIFEST_COPY, MANIFEST])
    folder.delete()
    return ""
