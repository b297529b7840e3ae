"""Deltas: items that came after an export, with their vectors, and ids of items that are gone.

They lie in the folder `deltas/` of the export, numbered, each an artefact of its own, and travel with it. A delta names
the export that it belongs to and the delta before it by their content: one that is missing, or that was made for
another export, is refused. An export that is made again begins without deltas.
"""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from alphafuse.errors import WorkspaceError
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import MANIFEST, MANIFEST_COPY, content_fingerprint
from alphafuse.storage.ownership import Guard

DELTAS = "deltas"
REMOVED_FILE = "removed.json"
"""List of the ids of items that are gone."""
STAGE = "add-items"
_IDS = TypeAdapter(list[str])


class Delta(Artifact):
    """One delta. The inputs in its manifest are `export` and `before`, the content fingerprints of the export and of
    the delta before it; `before` is empty for the first one."""

    def damaged(self, name: str, cause: object) -> WorkspaceError:
        return WorkspaceError(
            f"{self.folder.uri}/{name} cannot be used: {cause}.",
            "Copy the export again with all of its deltas; or delete this delta and all later ones, and add their "
            "items again (`alphafuse add-items`)",
        )

    def removed(self) -> list[str]:
        """Ids of the items that this delta removes, before it adds its own.

        Raises:
            WorkspaceError: the file is damaged.
        """
        try:
            return _IDS.validate_json(self.read_file(REMOVED_FILE))
        except ValidationError as error:
            raise self.damaged(REMOVED_FILE, "it holds no list of ids") from error


def delta_at(export: Folder, number: int, guard: Guard | None = None) -> Delta:
    """The delta with this number, from 1 on, whether it is there or not."""
    return Delta(export / DELTAS / f"{number:06d}", "delta", STAGE, guard)


def find_deltas(export: Artifact) -> list[Delta]:
    """The finished deltas of an export, in their order.

    Raises:
        WorkspaceError: one is missing or damaged, or belongs to another export.
    """
    folder, found = export.folder, list[Delta]()
    base, before = content_fingerprint(export.require()), ""
    latest = max((int(name) for name in (folder / DELTAS).names() if name.isdecimal()), default=0)
    for number in range(1, latest + 1):
        delta = delta_at(folder, number)
        if not (delta.folder.exists(MANIFEST) or delta.folder.exists(MANIFEST_COPY)):
            if number < latest:
                raise delta.damaged(MANIFEST, "it is missing, but later deltas are there")
            break  # it is being written, or its writer was interrupted
        manifest = delta.require()
        if manifest.inputs.get("export") != base:
            raise delta.damaged(MANIFEST, "it was made for another export")
        if manifest.inputs.get("before") != before:
            raise delta.damaged(MANIFEST, "it does not follow from the delta before it")
        found.append(delta)
        before = content_fingerprint(manifest)
    return found
