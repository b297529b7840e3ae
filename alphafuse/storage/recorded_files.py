"""The files of one folder that a stage writes and later ones read, each with a small record beside it.

A file is written atomically, then its record; a file without a record does not count as written. A writer of thousands
of files puts their records into indexes (`record_index.py`), which are read as if each lay beside its file. A reader
compares the file with its record: Parquet files by size and footer, whose pages have checksums of their own, all others
by their checksum. This module knows nothing of manifests, or of what a stage computes.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.errors import StaleError, WorkspaceError
from alphafuse.storage.filesystem.folder import Folder, retried
from alphafuse.storage.filesystem.side_by_side import side_by_side
from alphafuse.storage.manifest import INDEX_SUFFIX, RECORD_SUFFIX, FileRecord, read_index, read_record, to_json
from alphafuse.storage.ownership import Guard
from alphafuse.storage.parquet_files import NOT_READABLE, footer_hash, iterate_parquet, read_parquet, take_rows
from alphafuse.storage.record_index import RecordIndex

RECORDS = (RECORD_SUFFIX, INDEX_SUFFIX)
"""Endings of files with records."""
CHANGED = "its checksum differs from the manifest's"

T = TypeVar("T")


class RecordedFiles:
    """A folder of recorded files. Picklable.

    Args:
        guard: asked before anything is written or deleted, and raises if another process owns the workspace.
        name: name of the artefact that the files belong to.
        stage: name of the stage that writes them.
        borrower: URI of the workspace that borrows the files from another one, and may not write them; empty: they
            belong to the workspace that they were opened from.
    """

    def __init__(self, folder: Folder, name: str, stage: str, guard: Guard | None = None, borrower: str = "") -> None:
        self.folder = folder
        self.name = name
        self.stage = stage
        self.guard = guard
        self.borrower = borrower

    def write_table(
        self,
        name: str,
        table: pa.Table,
        wanted: str,
        *,
        first_row: int = 0,
        row_group_size: int = 8192,
        details: Mapping[str, Any] | None = None,
        index: RecordIndex | None = None,
    ) -> FileRecord:
        """Write `table` as the Parquet file `name`, atomically, with its record (see `write_file`).

        Args:
            index: gets the record, which then is not written beside the file.
        """
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
        content = sink.getvalue()
        footer = footer_hash(pa.BufferReader(content))
        return self._write(name, content, wanted, table.num_rows, first_row, details, footer, index)

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
        return self._write(name, content, wanted, rows, first_row, details)

    def _write(
        self,
        name: str,
        content: bytes | pa.Buffer,
        wanted: str,
        rows: int,
        first_row: int,
        details: Mapping[str, Any] | None,
        footer: str = "",
        index: RecordIndex | None = None,
    ) -> FileRecord:
        self.require_own()
        checksum = self.folder.write_bytes(name, content)
        record = FileRecord(name, rows, first_row, len(content), checksum, wanted, dict(details or {}), footer)
        if index is None:
            return self._write_record(record)
        index.add(record)
        return record

    @contextmanager
    def writing_table(self, name: str, schema: pa.Schema, wanted: str) -> Iterator[Callable[[pa.Table], None]]:
        """Write the Parquet file `name` part by part; yields a function that appends a table as a row group.

        File and record exist after the `with` block has ended without an error.
        """
        self.require_own()
        rows = 0
        options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
        with self.folder.writing(name) as stream, pq.ParquetWriter(stream, schema, **options) as writer:

            def append(table: pa.Table) -> None:
                nonlocal rows
                writer.write_table(table)
                rows += table.num_rows

            yield append
            self.require_own()  # the file has no name yet
        checksum, footer = stream.sha256.hexdigest(), self._footer_hash(name)
        self._write_record(FileRecord(name, rows, 0, stream.bytes, checksum, wanted, footer=footer))

    @retried
    def _footer_hash(self, name: str) -> str:
        filesystem, path = self.folder.open()
        with filesystem.open_input_file(f"{path}/{name}") as written:
            return footer_hash(written)

    def _write_record(self, record: FileRecord) -> FileRecord:
        self.folder.write_bytes(record.name + RECORD_SUFFIX, to_json(record))
        return record

    def read_table(self, file: FileRecord, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a Parquet file of this artefact.

        Raises:
            WorkspaceError: the file is missing, damaged or another one than its record says.
        """
        return self.read_parquet(file, lambda parquet: parquet.read(columns=columns))

    def read_column(self, file: FileRecord, column: str) -> pa.ChunkedArray:
        """Read a column of a Parquet file, in the calling thread: calls that are made side by side would wait for one
        another in Arrow's own threads, which are as many as CPUs. Raises as `read_table` does."""
        return self.read_parquet(file, lambda parquet: parquet.read(columns=[column], use_threads=False))[column]

    def take_rows(self, file: FileRecord, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Read some rows of a Parquet file, in the given order; reads only the row groups that hold them. Raises as
        `read_table` does."""
        return self.read_parquet(file, lambda parquet: take_rows(parquet, rows, columns))

    def read_parquet(self, file: FileRecord, read: Callable[[pq.ParquetFile], T]) -> T:
        """Apply `read` to a Parquet file of this artefact and return its result; `read` may be called several times.
        Raises as `read_table` does, and if the file lacks a column that is read."""
        with self.readable(file.name):
            return read_parquet(self.folder, file, read)

    def iterate_parquet(
        self, file: FileRecord, column: str, groups: Sequence[int], block_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield a column of some row groups of a Parquet file, in blocks of at most `block_rows` rows. Raises as
        `read_parquet` does."""
        with self.readable(file.name):
            yield from iterate_parquet(self.folder, file, column, groups, block_rows)

    @contextmanager
    def readable(self, name: str) -> Iterator[None]:
        """Context in which a file is read: one that is missing or not readable is told as damaged."""
        try:
            yield
        except FileNotFoundError as error:
            raise self.damaged(name, "it is missing") from error
        except NOT_READABLE as error:
            raise self.damaged(name, error) from error

    def read_committed(self, file: FileRecord) -> bytes:
        """Read a file of the manifest as a whole (see `read_file`)."""
        with self.readable(file.name):
            content = self.folder.read_bytes(file.name)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise self.damaged(file.name, CHANGED)
        return content

    def read_if_whole(self, file: FileRecord) -> bytes | None:
        """The content of a file as it was committed; None if the file is missing or differs. Failures of the storage
        are raised: they say nothing of the file."""
        try:
            content = self.folder.read_bytes(file.name)
        except (FileNotFoundError, IsADirectoryError):
            return None
        return content if hashlib.sha256(content).hexdigest() == file.sha256 else None

    def fault(self, file: FileRecord) -> str:
        """The fault of a file, which is read as a whole; empty if it is as it was committed."""
        try:
            return "" if self.folder.sha256(file.name) == file.sha256 else CHANGED
        except FileNotFoundError:
            return "it is missing"
        except IsADirectoryError:
            return "it is a folder"

    def committed_files(self, wanted: str) -> dict[str, FileRecord]:
        """Records by file name of the files already written for fingerprint `wanted`.

        A record is ignored if its file is gone (by an interrupted deletion) or has another size.

        Raises:
            StaleError: files of another fingerprint lie in the folder.
        """
        sizes = self.folder.sizes()
        records, _ = self.examine_records(sizes)
        for record in records.values():
            if record.fingerprint != wanted:
                raise self.mismatch([f"file {record.name} was made by an earlier, different run"])
        return {name: record for name, record in records.items() if sizes.get(name) == record.bytes}

    def records(self) -> dict[str, FileRecord]:
        """Records by file name of all files written, from any inputs (see `examine_records`)."""
        return self.examine_records(self.folder.sizes())[0]

    def examine_records(self, sizes: Mapping[str, int | None]) -> tuple[dict[str, FileRecord], dict[str, str]]:
        """Read all records.

        Args:
            sizes: sizes of the files in the folder, as it gives them.

        Returns:
            Records by file name; and the faults of damaged files with records, by their names. A file has no record
            here, so that it does not count as written, if its record is damaged, or if two indexes differ on it.
        """
        names = [name for name, size in sizes.items() if size is not None and name.endswith(RECORDS)]
        found, doubtful, faults = dict[str, FileRecord](), set[str](), dict[str, str]()
        for name, (records, fault) in zip(names, side_by_side(self._read_records, names), strict=True):
            if fault:
                faults[name] = fault
            for record in records:
                if found.setdefault(record.name, record) != record:
                    doubtful.add(record.name)
        return {name: record for name, record in found.items() if name not in doubtful}, faults

    def _read_records(self, name: str) -> tuple[list[FileRecord], str]:
        """The records in a file, an index or one record beside its file; and the file's fault, if it is damaged."""
        try:
            if name.endswith(INDEX_SUFFIX):
                return read_index(self.folder.read_bytes(name)), ""
            return [self._read_record(name.removesuffix(RECORD_SUFFIX))], ""
        except ValueError as error:
            return [], str(error)

    def record(self, name: str) -> FileRecord:
        """The record that lies beside a file, whether the artefact is committed or not.

        Raises:
            WorkspaceError: the record is missing or damaged.
        """
        try:
            return self._read_record(name)
        except FileNotFoundError as error:
            raise self.damaged(name + RECORD_SUFFIX, "it is missing") from error
        except ValueError as error:
            raise self.damaged(name + RECORD_SUFFIX, error) from error

    def _read_record(self, name: str) -> FileRecord:
        return read_record(self.folder.read_bytes(name + RECORD_SUFFIX), name)

    def clear(self) -> None:
        """Delete the folder with all files."""
        self.require_own()
        self.folder.delete()

    def require_own(self) -> None:
        """Check that the artefact may be written.

        Raises:
            WorkspaceError: it is borrowed, so that other runs may need it.
            OwnershipError: another process has taken the workspace over.
        """
        if self.guard is not None:
            self.guard.require()
        if self.borrower:
            raise WorkspaceError(
                f"{self.borrower} borrows {self.name!r} from {self.folder.uri}, as other runs may: it is not made "
                f"again from here. {self.owner_remedy()}; or give another `workspace`"
            )

    def damaged(self, name: str, cause: object) -> WorkspaceError:
        """The error for a file that cannot be read back."""
        fault = f"{self.folder.uri}/{name} cannot be used: {cause}."
        if self.borrower:
            return WorkspaceError(fault, self.owner_remedy())
        return WorkspaceError(
            fault,
            "`alphafuse verify CONFIG --repair` deletes what is damaged, and `alphafuse run CONFIG` makes that again; "
            f"or make all of it again with `alphafuse run CONFIG --redo {self.stage}`",
        )

    def owner_remedy(self) -> str:
        """The advice on borrowed files that are damaged or missing."""
        owner = self.folder.uri.rsplit("/", 1)[0]
        return (
            f"The owner can make it again: `alphafuse verify CONFIG --set workspace={shlex.quote(owner)} --repair`, "
            f"then `alphafuse run` with the same setting and `--until {self.stage}`"
        )

    def mismatch(self, changes: Sequence[str]) -> StaleError:
        """The error for files that were made from other inputs, which `changes` tells."""
        shown = "; ".join(changes[:5]) + ("; …" if len(changes) > 5 else "")
        fault = f"{self.folder.uri} was made from other inputs than this configuration gives ({shown})."
        replaced = f", or replace it and all that follows from it: `alphafuse run CONFIG --redo {self.stage}`"
        return StaleError(fault, "Give another `workspace`" + replaced * (not self.borrower))
