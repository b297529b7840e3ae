"""Finds the workspaces in a folder: the folder itself, or folders below it, such as those of a comparison; the folders
of tunings; and registries of models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow.fs as pafs

from alphafuse.registry.version_registry import FOLDERS as REGISTRY_FOLDERS
from alphafuse.stages import ARTIFACTS, STAGES
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.manifest import MANIFEST
from alphafuse.storage.workspace import BORROWED, CONFIG, Workspace
from alphafuse.tuning.trials import FILE as TRIALS

DEPTH = 3
"""Workspaces are looked for this many folders down: a folder of comparisons, a comparison, its `shared/`."""
MOST_FOLDERS = 2_000
"""Largest number of folders that are opened, so that a search of a home folder or a bucket comes to an end."""


@dataclass(frozen=True)
class Found:
    """Outcome of a search.

    Attributes:
        workspaces: URIs of the workspaces, sorted.
        problems: why some folders were not searched.
        tunings: URIs of the folders of tunings, whose trials are among the workspaces; sorted.
        registries: URIs of registries of models, sorted.
    """

    workspaces: list[str]
    problems: list[str]
    tunings: list[str] = field(default_factory=list)
    registries: list[str] = field(default_factory=list)


def find_workspaces(place: str) -> Found:
    """The workspaces in `place`; none where it does not exist. Links are not followed: they may lead anywhere.

    Raises:
        OSError: the place itself cannot be read.
    """
    found, root = Found([], []), Folder(resolve(place))
    _search(root, _entries(root), DEPTH, iter(range(MOST_FOLDERS)), found, root)
    found.workspaces.sort()
    found.tunings.sort()
    found.registries.sort()
    return found


def _entries(folder: Folder) -> list[pafs.FileInfo]:
    filesystem, path = folder.open()
    entries: list[pafs.FileInfo] = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return entries


def _search(
    folder: Folder, entries: list[pafs.FileInfo], depth: int, opened: Iterator[int], found: Found, root: Folder
) -> None:
    """Add the workspaces in a folder with these entries to `found`."""
    if _is_workspace({info.base_name for info in entries}):
        found.workspaces.append(folder.uri)
        return
    if TRIALS in {info.base_name for info in entries}:
        found.tunings.append(folder.uri)
    if {*REGISTRY_FOLDERS} <= {info.base_name for info in entries}:
        found.registries.append(folder.uri)
        return
    for info in entries:
        if not depth or info.type != pafs.FileType.Directory or info.base_name.startswith("."):
            continue
        inner = folder / info.base_name
        if "://" not in inner.uri and os.path.islink(inner.uri):
            if leads_out(inner.uri, root.uri):
                found.problems.append(f"{inner.uri} is a link to another place, which is not followed: name that place")
        elif next(opened, None) is not None:
            try:
                within = _entries(inner)
            except OSError as error:
                found.problems.append(f"{inner.uri}: {type(error).__name__}: {error}")
            else:
                _search(inner, within, depth - 1, opened, found, root)


def leads_out(path: str, folder: str) -> bool:
    """True if a local path is, or lies behind, a link to somewhere outside of a folder."""
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(path)]) != real


def is_workspace(uri: str) -> bool:
    """Tell whether a folder that is given as a workspace is one: it need not have a configuration.

    Raises:
        OSError: the folder cannot be read.
    """
    names = {info.base_name for info in _entries(Folder(resolve(uri)))}
    return _is_workspace(names) or bool(ARTIFACTS.keys() & names)


def _is_workspace(names: set[str]) -> bool:
    """Tell whether a folder with these names is a workspace. A run that has just begun has no artefact yet, and a
    copied run may have no events."""
    return bool({"events", BORROWED} & names) or (CONFIG in names and bool(ARTIFACTS.keys() & names))


def committed_stages(workspace: Workspace) -> frozenset[str]:
    """Names of the stages whose artefacts are all finished, borrowed ones included."""
    return frozenset(
        stage.name
        for stage in STAGES
        if all(workspace.artifact(name).folder.exists(MANIFEST) for name in stage.artifacts)
    )


def borrowed_stages(workspace: Workspace) -> frozenset[str]:
    """Names of the stages that have an artefact which another workspace made for this one."""
    return frozenset(stage.name for name, stage in ARTIFACTS.items() if workspace.borrows(name))
