"""An artefact is a folder of files that one stage makes, with the manifest that commits them.

A stage writes its files one by one, each atomically and with a small record beside it, and at the end a manifest that
names all of them. Records and manifest hold the fingerprint of the inputs (configuration and upstream artefacts) that
they were made from. If a stage finds a manifest with its own fingerprint, there is nothing to do; if it finds files
without a manifest, it continues; if it finds another fingerprint, it refuses. This module knows nothing of what a stage
computes.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from alphafuse.errors import UnfinishedError, WorkspaceError
from alphafuse.storage.filesystem.folder import is_temporary
from alphafuse.storage.manifest import (
    MANIFEST,
    MANIFEST_COPY,
    FileRecord,
    Manifest,
    NewerFormatError,
    changed_inputs,
    fingerprint,
    read_manifest,
    to_json,
)
from alphafuse.storage.recorded_files import RecordedFiles


class Artifact(RecordedFiles):
    """A named folder of a workspace, made by one stage and read by later ones. Picklable."""

    def inner(self, name: str) -> RecordedFiles:
        """The unfinished work `name` of the stage, inside of this artefact."""
        return RecordedFiles(self.folder / name, self.name, self.stage, self.guard, self.borrower)

    def manifest(self) -> Manifest | None:
        """The manifest; None if the artefact is not committed.

        Raises:
            WorkspaceError: a newer program wrote it, or it is damaged, or lost while its copy is there.
        """
        with suppress(FileNotFoundError):  # rather than asked for first, which is one more request
            return self.read_manifest(MANIFEST)
        if self.folder.exists(MANIFEST_COPY):
            raise self.damaged(MANIFEST, "it is missing, but its copy is there")
        return None

    def read_manifest(self, name: str) -> Manifest:
        """Read the manifest (`MANIFEST`) or its copy (`MANIFEST_COPY`)."""
        try:
            return read_manifest(self.folder.read_bytes(name), self.name)
        except NewerFormatError as error:
            raise WorkspaceError(f"{self.folder.uri} {error}: run a newer one") from error
        except (IsADirectoryError, ValueError) as error:
            raise self.damaged(name, error) from error

    def require(self) -> Manifest:
        """The manifest of a committed artefact.

        Raises:
            UnfinishedError: the stage that makes it has not finished.
        """
        manifest = self.manifest()
        if manifest is None:
            if self.borrower:
                raise UnfinishedError(f"{self.folder.uri} holds no finished {self.name!r}.", self.owner_remedy())
            raise UnfinishedError(
                f"{self.folder.uri} holds no finished {self.name!r}; run the stage {self.stage!r} first "
                f"(`alphafuse {self.stage} CONFIG`, or `alphafuse run CONFIG` for all stages)"
            )
        return manifest

    def is_committed(self, inputs: Mapping[str, Any]) -> bool:
        """True if the artefact is complete and made from exactly these inputs.

        Raises:
            StaleError: the artefact, or files of an unfinished run, were made from other inputs.
        """
        wanted = fingerprint(inputs)
        manifest = self.manifest()
        if manifest is not None and manifest.fingerprint != wanted:
            raise self.mismatch(changed_inputs(manifest.inputs, json.loads(json.dumps(inputs))))
        if manifest is None:
            self.committed_files(wanted)
        return manifest is not None

    def file(self, name: str) -> FileRecord:
        """The record of a file of a committed artefact.

        Raises:
            WorkspaceError: the artefact is not committed, or the manifest does not name the file.
        """
        file = self.require().file(name)
        if file is None:
            raise self.damaged(name, "the manifest does not name it")
        return file

    def read_file(self, name: str) -> bytes:
        """Read a committed file as a whole.

        Raises:
            WorkspaceError: the file is missing, or differs from what was committed.
        """
        return self.read_committed(self.file(name))

    def verify(self) -> None:
        """Read every committed file and compare its checksum.

        Raises:
            WorkspaceError: a file is missing or differs from what was committed.
        """
        for file in self.require().files:
            if fault := self.fault(file):
                raise self.damaged(file.name, fault)

    def commit(
        self, inputs: Mapping[str, Any], details: Mapping[str, Any] | None = None, rows: int | None = None
    ) -> Manifest:
        """Write the manifest over all files recorded for these inputs; from then on the artefact is committed.

        Args:
            rows: number of rows; the files must hold each row once. None: not checked.

        Raises:
            WorkspaceError: rows are missing, or in two files.
        """
        self.require_own()
        wanted = fingerprint(inputs)
        files = sorted(self.committed_files(wanted).values(), key=lambda file: (file.first_row, file.name))
        if rows is not None:
            self._require_rows([file for file in files if file.rows], rows)
        self.folder.delete_files(list(filter(is_temporary, self.folder.names())))  # of writers that were killed
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        manifest = Manifest(self.name, wanted, dict(inputs), files, dict(details or {}), created)
        for name in (MANIFEST, MANIFEST_COPY):  # in this order: a copy without a manifest counts as damage
            self.folder.write_bytes(name, to_json(manifest))
        return manifest

    def _require_rows(self, files: Sequence[FileRecord], rows: int) -> None:
        """Check that files, sorted by their rows, hold each row of [0, rows) once."""
        end = 0
        for first, stop in [(file.first_row, file.first_row + file.rows) for file in files] + [(rows, rows)]:
            if first != end:
                kind, low, high = ("missing", end, first) if first > end else ("in two files", first, end)
                raise WorkspaceError(
                    f"{self.folder.uri} is not complete: rows [{low}, {high}) of {rows} are {kind}. "
                    f"Make it again with `alphafuse run CONFIG --redo {self.stage}`"
                )
            end = stop

    def uncommit(self) -> None:
        """Delete the manifest and its copy; the stage then continues with the files that are there."""
        self.require_own()
        self.folder.delete_files([MANIFEST_COPY, MANIFEST])  # in this order, see `commit`

    def clear(self) -> None:
        """Delete the artefact, its manifest first, so that after an interruption it does not look complete."""
        self.uncommit()
        self.folder.delete()
