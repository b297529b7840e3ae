"""Finds the workspaces in a folder: the folder itself, or folders below it, such as those of a comparison."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.fs as pafs

from alphafuse.stages import ARTIFACTS, STAGES
from alphafuse.storage.folder import Folder, resolve
from alphafuse.storage.manifest import MANIFEST
from alphafuse.storage.workspace import BORROWED, Workspace

DEPTH = 3
"""Workspaces are looked for this many folders down: a folder of comparisons, a comparison, its `shared/`."""
MOST_FOLDERS = 2_000
"""Largest number of folders that are opened, so that a search of a home folder or a bucket comes to an end."""


def find_workspaces(place: str) -> list[str]:
    """URIs of the workspaces in `place`, sorted; none where it does not exist.

    Raises:
        OSError: the storage does not answer.
    """
    opened = iter(range(MOST_FOLDERS))
    return sorted(_search(Folder(resolve(place)), DEPTH, opened))


def _search(folder: Folder, depth: int, opened: Iterator[int]) -> Iterator[str]:
    if next(opened, None) is None:
        return
    filesystem, path = folder.open()
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    names = {info.base_name for info in infos}
    if _is_workspace(names):
        yield folder.uri
    elif depth:
        for info in infos:
            if info.type == pafs.FileType.Directory and not info.base_name.startswith("."):
                yield from _search(folder / info.base_name, depth - 1, opened)


def _is_workspace(names: set[str]) -> bool:
    """Tell whether a folder with these names is a workspace. A run that has just begun has no artefact yet, and a
    copied run may have no events."""
    return bool({"events", BORROWED} & names) or ("config.yaml" in names and bool(ARTIFACTS.keys() & names))


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
