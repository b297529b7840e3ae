"""Stores the artefact `embeddings`: its shards, and the vectors of texts that the shards are assembled from.

During a job, `embeddings/vectors/` holds vectors by the content hash of their text. These depend on the encoder alone:
they remain after a killed job or a change of the catalog, and are deleted when the shards are committed. Vectors are
also read from donors, other artefacts of this kind, in which nothing is changed. Knows nothing of engines; everything
here may run in any process of a cluster.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.language.plan import hash_array
from alphafuse.language.text_encoders.encoder import EMPTY, Encoded, failures_by_category
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.side_by_side import side_by_side
from alphafuse.storage.manifest import RECORD_SUFFIX, FileRecord, fingerprint, to_json
from alphafuse.storage.matrices import from_column, to_column
from alphafuse.storage.record_index import RecordIndex
from alphafuse.storage.recorded_files import RecordedFiles

ITEM_COLUMNS = ["item_index", "item_id", "text_hash"]
"""Columns of the catalog that a shard of embeddings needs."""
CANARIES = "canaries.npy"
"""File with the first engine's vectors of the canaries."""
TEXT_HASHES = "text_hashes"
"""Detail of the record of a file with vectors: the hashes of its texts, base64. Older records lack it."""


class EmbeddingStore:
    """Shards of embeddings made by one encoder from one catalog. Picklable.

    Args:
        artifact: the artefact `embeddings`.
        inputs: everything the artefact is made from; `encoder` is the identity of the encoder.
        donors: other embeddings, finished or not, whose vectors are read where the same encoder made them.
    """

    def __init__(self, artifact: Artifact, inputs: Mapping[str, Any], donors: Sequence[Artifact] = ()) -> None:
        self.artifact = artifact
        self._given = [files for donor in donors for files in (donor, donor.inner("vectors"))]
        self.vectors = artifact.inner("vectors")
        self.encoder = fingerprint(inputs["encoder"])
        self.wanted = fingerprint(inputs)

    def adopt_stale_shards(self) -> None:
        """Turn shards that the same encoder made from another catalog into vectors of texts.

        Each step can be repeated, so that a later job continues after one that was killed here. Shards of another
        workspace stay where they are.
        """
        if self.artifact.borrower:
            return
        stale = [
            record
            for record in self.artifact.records().values()
            if record.fingerprint != self.wanted and record.details.get("encoder") == self.encoder
        ]
        if not stale:
            return
        filesystem, path = self.artifact.folder.open()
        self.artifact.uncommit()
        # First of all: vectors must never be there without what they are compared by.
        stale = [record for record in stale if not self._adopt_canaries(record)]
        _, target = self.vectors.folder.open()
        filesystem.create_dir(target, recursive=True)
        for record in stale:
            left = self.artifact.folder.exists(record.name)
            if record.rows:
                adopted = dataclasses.replace(record, name=f"{record.sha256[:32]}.parquet", fingerprint=self.encoder)
                if left:
                    filesystem.move(f"{path}/{record.name}", f"{target}/{adopted.name}")
                self.vectors.folder.write_bytes(adopted.name + RECORD_SUFFIX, to_json(adopted))
            elif left:  # a quarantine, whose rows are part of the shard
                filesystem.delete_file(f"{path}/{record.name}")
            filesystem.delete_file(f"{path}/{record.name}{RECORD_SUFFIX}")

    def _adopt_canaries(self, record: FileRecord) -> bool:
        """Make a stale record that of this store's canaries; False where it is another file's."""
        if record.name == CANARIES:
            adopted = dataclasses.replace(record, fingerprint=self.wanted)
            self.artifact.folder.write_bytes(CANARIES + RECORD_SUFFIX, to_json(adopted))
        return record.name == CANARIES

    def canaries(self) -> np.ndarray | None:
        """The first engine's vectors of the canaries, [64, dim], of this store or of a donor; None before there was
        one."""
        for files in (self.artifact, *self._given):
            record, sizes = files.records().get(CANARIES), files.folder.sizes()
            if record and record.details.get("encoder") == self.encoder and sizes.get(CANARIES) == record.bytes:
                vectors: np.ndarray = np.load(io.BytesIO(files.read_committed(record)), allow_pickle=False)
                return vectors
        return None

    def write_canaries(self, vectors: np.ndarray) -> None:
        """Keep the vectors that all engines' are compared with."""
        content = io.BytesIO()
        np.save(content, vectors)
        self.artifact.write_file(CANARIES, content.getvalue(), self.wanted, details={"encoder": self.encoder})

    def finished_shards(self) -> set[str]:
        """Names of the shards that are complete, each with its quarantine.

        Raises:
            WorkspaceError: shards made from other inputs are there.
        """
        files = self.artifact.committed_files(self.wanted)
        shards = (record for record in files.values() if record.rows)
        return {s.name for s in shards if not s.details["quarantined"] or _quarantine_of(s.name) in files}

    def known_vectors(self) -> tuple[dict[str, FileRecord], list[tuple[str, np.ndarray]]]:
        """Find the files with vectors of texts.

        Returns:
            Their records by name (one with a slash is that of a donor's file); and name and text hashes ([rows, 2]
            uint64) of each. Only files whose records lack the hashes are read.

        Raises:
            WorkspaceError: an unfinished run with another encoder left some.
        """
        known = self.vectors.committed_files(self.encoder)
        for number, files in enumerate(self._given):
            sizes = files.folder.sizes()
            for name, record in files.records().items():
                made_by = self.encoder in (record.fingerprint, record.details.get("encoder"))
                if made_by and record.rows and sizes.get(name) == record.bytes:
                    known[f"{number}/{name}"] = record
        hashes = side_by_side(lambda each: (each[0], self._hashes(*each)), known.items())
        return {name: _without_hashes(record) for name, record in known.items()}, hashes

    def _hashes(self, name: str, record: FileRecord) -> np.ndarray:
        if TEXT_HASHES in record.details:
            return np.frombuffer(base64.b64decode(record.details[TEXT_HASHES]), np.uint64).reshape(record.rows, 2)
        return hash_array(self._files(name).read_column(record, "text_hash"))

    def _files(self, name: str) -> RecordedFiles:
        """The files among which one with vectors is."""
        number, slash, _ = name.partition("/")
        return self._given[int(number)] if slash else self.vectors

    def index(self) -> RecordIndex:
        """A new index for the files with vectors of one engine."""
        return RecordIndex(self.vectors.folder)

    def write_vectors(self, name: str, hashes: pa.Array, encoded: Encoded, index: RecordIndex) -> FileRecord:
        """Write the vectors of a batch of texts; returns the record as `known_vectors` does."""
        table = pa.table({"text_hash": hashes, **_columns(encoded)})
        content = hash_array(pa.chunked_array([hashes])).tobytes()
        details = {"dim": encoded.vectors.shape[1], TEXT_HASHES: base64.b64encode(content).decode()}
        return _without_hashes(self.vectors.write_table(name, table, self.encoder, details=details, index=index))

    def gather(
        self, files: Sequence[tuple[str, FileRecord]], file: np.ndarray, row: np.ndarray, dim: int, dtype: str
    ) -> Encoded:
        """Collect the vectors of items from their places; reads only the row groups needed.

        Args:
            files: names as `known_vectors` gives them, and records.
            file, row: [items]; the vector of item i is row `row[i]` of `files[file[i]]`.
        """
        vectors = np.zeros((len(file), dim), dtype)
        failures: dict[int, str] = {}
        order = np.argsort(file, kind="stable")
        used, starts = np.unique(file[order], return_index=True)
        for index, items in zip(used, np.split(order, starts[1:]), strict=True):
            name, record = files[index]
            table = self._files(name).take_rows(record, row[items], ["embedding", "reason"])
            vectors[items] = from_column(table["embedding"])[0]
            reasons = table["reason"].to_pylist()
            failures |= {int(item): reason for item, reason in zip(items, reasons, strict=True) if reason}
        return Encoded(vectors, failures)

    def write_shard(self, name: str, items: pa.Table, first_row: int, encoded: Encoded) -> FileRecord:
        """Write a shard and, if items were refused, its quarantine.

        Args:
            name: name of the catalog's shard with the same items.
            items: table with the columns `ITEM_COLUMNS`.
        """
        quarantined = sorted(position for position, reason in encoded.failures.items() if reason != EMPTY)
        details = {"encoder": self.encoder, "dim": encoded.vectors.shape[1]}
        if quarantined:
            reasons = pa.array([encoded.failures[position] for position in quarantined])
            table = items.select(["item_index", "item_id"]).take(quarantined).append_column("reason", reasons)
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            # Recorded without rows: these are rows of the shard already.
            self.artifact.write_file(_quarantine_of(name), sink.getvalue(), self.wanted, details=details)
        details |= {
            "empty": len(encoded.failures) - len(quarantined),
            "quarantined": failures_by_category(encoded.failures),
        }
        table = pa.table(
            {"item_index": items["item_index"], "text_hash": items["text_hash"], **_columns(encoded)},
        )
        return self.artifact.write_table(name, table, self.wanted, first_row=first_row, details=details)

    def discard_vectors(self) -> None:
        """Delete the vectors that committed shards were assembled from; those of another workspace are its own."""
        if not self.artifact.borrower:
            self.vectors.clear()


def _without_hashes(record: FileRecord) -> FileRecord:
    """A record as it is kept in memory and sent around: the hashes of a catalog's texts are large."""
    details = {name: detail for name, detail in record.details.items() if name != TEXT_HASHES}
    return dataclasses.replace(record, details=details)


def _quarantine_of(shard: str) -> str:
    """Name of the file with the refused items of a shard."""
    return shard.replace("part", "quarantine")


def _columns(encoded: Encoded) -> dict[str, pa.Array]:
    """Columns that shards and files of vectors have in common."""
    missing = np.zeros(len(encoded.vectors), bool)
    missing[list(encoded.failures)] = True
    reasons = [encoded.failures.get(position) for position in range(len(missing))] if encoded.failures else None
    return {
        "embedding": to_column(encoded.vectors, missing),
        "reason": pa.array(reasons, pa.string()) if reasons else pa.nulls(len(missing), pa.string()),
    }
