"""An artefact is a folder of files that one stage makes, with the manifest that commits them.

A stage writes its files one by one, each atomically and with a small record beside it, and at the end a manifest that
names all of them. Records and manifest hold the fingerprint of the inputs (configuration and upstream artefacts) that
they were made from. If a stage finds a manifest with its own fingerprint, there is nothing to do; if it finds files
without a manifest, it continues; if it finds another fingerprint, it refuses. This module knows nothing of what a stage
computes.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.errors import StaleError, UnfinishedError, WorkspaceError
from alphafuse.storage.folder import TEMPORARY_SUFFIX, Folder
from alphafuse.storage.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    RECORD_SUFFIX,
    FileRecord,
    Manifest,
    changed_inputs,
    fingerprint,
)
from alphafuse.storage.ownership import Guard
from alphafuse.storage.parquet_files import NOT_READABLE, iterate_parquet, read_parquet, take_rows

T = TypeVar("T")


class Artifact:
    """A named folder of a workspace, made by one stage and read by later ones. Picklable.

    Args:
        guard: asked before anything is written or deleted, and raises if another process owns the workspace.
    """

    def __init__(self, folder: Folder, name: str, stage: str, guard: Guard | None = None) -> None:
        self.folder = folder
        self.name = name
        self.stage = stage
        self.guard = guard

    def manifest(self) -> Manifest | None:
        """The manifest; None if the artefact is not committed.

        Raises:
            WorkspaceError: a newer program wrote it, or it is damaged.
        """
        if not self.folder.exists(MANIFEST):
            return None
        try:
            content = json.loads(self.folder.read_bytes(MANIFEST))
        except ValueError as error:
            raise self.damaged(MANIFEST, error) from error
        if content["format_version"] > FORMAT_VERSION:
            raise WorkspaceError(
                f"{self.folder.uri} has format {content['format_version']}, this version of alphafuse reads up to "
                f"{FORMAT_VERSION}: run a newer one"
            )
        content["files"] = [FileRecord(**file) for file in content["files"]]
        return Manifest(**content)

    def require(self) -> Manifest:
        """The manifest of a committed artefact.

        Raises:
            UnfinishedError: the stage that makes it has not finished.
        """
        manifest = self.manifest()
        if manifest is None:
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
            raise self._mismatch(changed_inputs(manifest.inputs, json.loads(json.dumps(inputs))))
        self.committed_files(wanted)
        return manifest is not None

    def committed_files(self, wanted: str) -> dict[str, FileRecord]:
        """Records by file name of the files already written for fingerprint `wanted`.

        A record is ignored if its file is gone (by an interrupted deletion) or has another size.

        Raises:
            StaleError: files of another fingerprint lie in the folder.
        """
        records, sizes = self.records(), self.folder.sizes()
        for record in records.values():
            if record.fingerprint != wanted:
                raise self._mismatch([f"file {record.name} was made by an earlier, different run"])
        return {name: record for name, record in records.items() if sizes.get(name) == record.bytes}

    def records(self) -> dict[str, FileRecord]:
        """Records by file name of all files written, from any inputs."""
        names = [name for name in self.folder.names() if name.endswith(RECORD_SUFFIX)]
        records = [FileRecord(**json.loads(self.folder.read_bytes(name))) for name in names]
        return {record.name: record for record in records}

    def write_table(
        self,
        name: str,
        table: pa.Table,
        wanted: str,
        *,
        first_row: int = 0,
        row_group_size: int = 8192,
        details: Mapping[str, Any] | None = None,
    ) -> FileRecord:
        """Write `table` as the Parquet file `name`, atomically, with its record (see `write_file`)."""
        sink = pa.BufferOutputStream()
        # Vectors hardly get smaller, and decompressing them takes longer than reading them.
        vectors = any(isinstance(kind, pa.ExtensionType) for kind in table.schema.types)
        compression = "none" if vectors else "zstd"
        # Readers get plain lists: the schema of Arrow would tell them that the values were a dictionary in memory.
        lists = [kind.value_type for kind in table.schema.types if pa.types.is_list(kind)]
        dictionaries = any(pa.types.is_dictionary(kind) for kind in lists)
        pq.write_table(
            table,
            sink,
            compression=compression,
            use_dictionary=not vectors,
            row_group_size=row_group_size,
            write_page_checksum=True,
            store_schema=not dictionaries,
        )
        return self.write_file(name, sink.getvalue(), wanted, rows=table.num_rows, first_row=first_row, details=details)

    def write_file(
        self,
        name: str,
        content: bytes | pa.Buffer,
        wanted: str,
        *,
        rows: int = 0,
        first_row: int = 0,
        details: Mapping[str, Any] | None = None,
    ) -> FileRecord:
        """Write a file atomically, then its record; a file without a record does not count as written."""
        self._require_owner()
        checksum = self.folder.write_bytes(name, content)
        record = FileRecord(name, rows, first_row, len(content), checksum, wanted, dict(details or {}))
        return self._write_record(record)

    @contextmanager
    def writing_table(self, name: str, schema: pa.Schema, wanted: str) -> Iterator[Callable[[pa.Table], None]]:
        """Write the Parquet file `name` part by part; yields a function that appends a table as a row group.

        File and record exist after the `with` block has ended without an error.
        """
        self._require_owner()
        rows = 0
        options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
        with self.folder.writing(name) as stream, pq.ParquetWriter(stream, schema, **options) as writer:

            def append(table: pa.Table) -> None:
                nonlocal rows
                writer.write_table(table)
                rows += table.num_rows

            yield append
            self._require_owner()  # the file has no name yet
        self._write_record(FileRecord(name, rows, 0, stream.bytes, stream.sha256.hexdigest(), wanted))

    def _write_record(self, record: FileRecord) -> FileRecord:
        self.folder.write_bytes(record.name + RECORD_SUFFIX, json.dumps(dataclasses.asdict(record)).encode())
        return record

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one Parquet file of this artefact.

        Raises:
            WorkspaceError: the file is missing or damaged.
        """
        return self.read_parquet(name, lambda parquet: parquet.read(columns=columns))

    def take_rows(self, name: str, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Read some rows of a Parquet file, in the given order; reads only the row groups that hold them.

        Raises:
            WorkspaceError: the file is missing or damaged.
        """
        return self.read_parquet(name, lambda parquet: take_rows(parquet, rows, columns))

    def read_parquet(self, name: str, read: Callable[[pq.ParquetFile], T]) -> T:
        """Apply `read` to a Parquet file of this artefact and return its result; `read` may be called several times.

        Raises:
            WorkspaceError: the file is missing or damaged, or lacks a column that is read.
        """
        with self._readable(name):
            return read_parquet(self.folder, name, read)

    def iterate_parquet(
        self, name: str, column: str, groups: Sequence[int], block_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield a column of some row groups of a Parquet file, in blocks of at most `block_rows` rows.

        Raises:
            WorkspaceError: the file is missing or damaged, or lacks the column.
        """
        with self._readable(name):
            yield from iterate_parquet(self.folder, name, column, groups, block_rows)

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self.damaged(name, "it is missing") from error
        except NOT_READABLE as error:
            raise self.damaged(name, error) from error

    def read_file(self, name: str) -> bytes:
        """Read a committed file as a whole.

        Raises:
            WorkspaceError: the file is missing, or differs from what was committed.
        """
        file = next((file for file in self.require().files if file.name == name), None)
        if file is None:
            raise self.damaged(name, "the manifest does not name it")
        return self.read_committed(file)

    def read_committed(self, file: FileRecord) -> bytes:
        """Read a file of the manifest as a whole (see `read_file`)."""
        with self._readable(file.name):
            content = self.folder.read_bytes(file.name)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise self.damaged(file.name, "its checksum differs from the manifest's")
        return content

    def verify(self) -> None:
        """Read every committed file and compare its checksum.

        Raises:
            WorkspaceError: a file is missing or differs from what was committed.
        """
        for file in self.require().files:
            self.read_committed(file)

    def repair(self) -> list[str]:
        """Delete damaged files with their records, records of missing files, and the manifest. The stage then makes
        these files again, and no others.

        Returns:
            Names of the files.
        """
        damaged = [file.name for file in self.require().files if not self.is_whole(file)]
        if damaged:
            self.folder.delete_files([MANIFEST, *(name + RECORD_SUFFIX for name in damaged), *damaged])
        return damaged

    def is_whole(self, file: FileRecord) -> bool:
        """True if a file of the manifest exists and is as it was committed."""
        try:
            self.read_committed(file)
        except WorkspaceError:
            return False
        return True

    def commit(
        self, inputs: Mapping[str, Any], details: Mapping[str, Any] | None = None, rows: int | None = None
    ) -> Manifest:
        """Write the manifest over all files recorded for these inputs; from then on the artefact is committed.

        Args:
            rows: number of rows; the files must hold each row once. None: not checked.

        Raises:
            WorkspaceError: rows are missing, or in two files.
        """
        self._require_owner()
        wanted = fingerprint(inputs)
        files = sorted(self.committed_files(wanted).values(), key=lambda file: (file.first_row, file.name))
        if rows is not None:
            self._require_rows([file for file in files if file.rows], rows)
        names = self.folder.names()
        killed = [name for name in names if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)]
        self.folder.delete_files(killed)  # temporary files of writers that were killed
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        manifest = Manifest(self.name, wanted, dict(inputs), files, dict(details or {}), created)
        content = json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False)
        self.folder.write_bytes(MANIFEST, content.encode())
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

    def clear(self) -> None:
        """Delete the artefact, its manifest first, so that after an interruption it does not look complete."""
        self._require_owner()
        self.folder.delete_files([MANIFEST])
        self.folder.delete()

    def _require_owner(self) -> None:
        """Raise OwnershipError if another process has taken the workspace over."""
        if self.guard is not None:
            self.guard.require()

    def damaged(self, name: str, cause: object) -> WorkspaceError:
        """The error for a file that cannot be read back."""
        return WorkspaceError(
            f"{self.folder.uri}/{name} cannot be used: {cause}.",
            "`alphafuse verify CONFIG --repair` deletes what is damaged, and `alphafuse run CONFIG` makes that again; "
            f"or make all of it again with `alphafuse run CONFIG --redo {self.stage}`",
        )

    def _mismatch(self, changes: Sequence[str]) -> StaleError:
        shown = "; ".join(changes[:5]) + ("; …" if len(changes) > 5 else "")
        return StaleError(
            f"{self.folder.uri} was made from other inputs than this configuration gives ({shown}).",
            f"Give another `workspace`, or replace it and all that follows from it: "
            f"`alphafuse run CONFIG --redo {self.stage}`",
        )
