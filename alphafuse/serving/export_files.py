"""The artefact `export`: everything that scores and recommends, in a folder that can be copied anywhere.

Owns the names and the contents of its files (docs/workspace.md), and checks them when they are read. Knows nothing of
who writes them, and needs neither the workspace nor the configuration that they come from.
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import safetensors.torch
import torch
from pydantic import ValidationError
from torch.nn import functional

from alphafuse.config import Config, ModelConfig
from alphafuse.errors import WorkspaceError
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks
from alphafuse.serving.approximate_index import ApproximateRanking
from alphafuse.serving.deltas import Delta, find_deltas
from alphafuse.stages import EXPORT, EXPORT_FORMAT
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder, resolve, retried
from alphafuse.storage.manifest import MANIFEST, MANIFEST_COPY, FileRecord, read_json_object
from alphafuse.storage.recorded_files import CHANGED

ITEMS, VECTORS = "items-", "vectors-"
"""Beginnings of the names of files of items and of their vectors, which go on with the index of the first item."""
WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.json"
ONNX_FILE = "query.onnx"
"""Exists only where `export.onnx` asks for it."""
INDEX_FILE = "items.usearch"
"""Exists only where `export.index` asks for it."""
SHORTEST = 1e-12
"""Smallest length that a vector is divided by, as in `functional.normalize`."""


class ExportedModel(ModelConfig):
    """Content of `model.json`: the settings of the section `model`, and all else that scoring depends on."""

    format: int
    """Version of the files of the export."""
    versions: dict[str, str]
    """Versions of the packages that wrote the export."""
    similarity: Literal["cosine", "dot"]
    """Similarity that items are ranked by."""
    seed: int
    """Random seed of the run, which the noise of a diffusion is drawn from."""
    item_dim: int
    """Width of an item vector: that of the model, or a multiple of it where an encoder makes several vectors."""


def describe_model(config: Config, item_dim: int) -> dict[str, Any]:
    """Return the content of `model.json` as plain values."""
    versions = {"alphafuse": importlib.metadata.version("alphafuse"), "torch": torch.__version__}
    facts = {"format": EXPORT_FORMAT, "versions": versions, "similarity": config.similarity, "seed": config.seed}
    return {**facts, "item_dim": item_dim, **config.model.model_dump(mode="json")}


def vectors_to_bytes(vectors: torch.Tensor, similarity: Literal["cosine", "dot"]) -> bytes:
    """Return the content of a file of vectors, given as the backbone reads them: float32 [rows, dim].

    For the dot product they stand in it as they are. For the cosine they have unit length, as they are ranked, beside
    their `lengths`: an item whose vector is stored once can be ranked and read.
    """
    if similarity == "dot":
        return safetensors.torch.save({"vectors": vectors})
    lengths = torch.linalg.vector_norm(vectors, dim=1).clamp(min=SHORTEST)
    return safetensors.torch.save({"vectors": functional.normalize(vectors, dim=1, eps=SHORTEST), "lengths": lengths})


class Export(Artifact):
    """A committed export with its deltas, for reading. Items of a delta follow those before it.

    Attributes:
        model: content of `model.json`.
        deltas: items that were added and removed after the export, in their order.

    Raises:
        WorkspaceError: `model.json` is damaged, another version of alphafuse wrote the export, or a delta is missing or
            belongs to another export.
    """

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder, EXPORT.artifacts[0], EXPORT.name)
        self.model = self._read_model()
        self.deltas = find_deltas(self)

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> Export:
        """Open the export in a folder, or that of a workspace.

        Args:
            path: path or URI.

        Raises:
            WorkspaceError: there is none, or it cannot be used.
        """
        folder = Folder(resolve(os.fspath(path)))
        for candidate in (folder, folder / EXPORT.artifacts[0]):
            if candidate.exists(MANIFEST) or candidate.exists(MANIFEST_COPY):
                return cls(candidate)
        raise WorkspaceError(
            f"{folder.uri} holds no finished export: give the folder `export` of a workspace (or a copy of it), or a "
            "workspace in which `alphafuse export CONFIG` has run"
        )

    def damaged(self, name: str, cause: object) -> WorkspaceError:
        fault = f"{self.folder.uri}/{name} cannot be used: {cause}."
        return WorkspaceError(fault, "Copy the export again, or make it again: `alphafuse export CONFIG --redo`")

    def names(self) -> pa.Table:
        """Ids and titles of all items, columns `item_id` and `title`; a row's number is the item index. Items that are
        gone are among them, since histories hold them.

        Raises:
            WorkspaceError: a file is damaged.
        """
        tables = [part.read_table(file, ["item_id", "title"]) for part, file in self._files(ITEMS)]
        return pa.concat_tables(tables)

    def removed(self) -> np.ndarray:
        """Indices of the items that are gone, int64, ascending. An item that has come back is another one.

        Raises:
            WorkspaceError: a file is damaged.
        """
        if not self.deltas:
            return np.array([], np.int64)
        gone, ids, rows = set[int](), dict[str, int](), 0
        for part in (self, *self.deltas):
            if isinstance(part, Delta):
                gone.update(ids.pop(item) for item in part.removed() if item in ids)
            for _, file in self._files(ITEMS, [part]):
                names = part.read_table(file, ["item_id"])["item_id"].to_pylist()
                ids |= zip(names, range(rows, rows + len(names)), strict=True)
                rows += len(names)
        return np.array(sorted(gone), np.int64)

    def vectors(self) -> tuple[VectorBlocks, VectorBlocks | None]:
        """All item vectors as they are ranked, [items, dim], and their lengths [items, 1], None where the vectors are
        not scaled. The memory is that of the files, or of copies of theirs where they are not local; every file is read
        once, to compare its checksum.

        Raises:
            WorkspaceError: a file is damaged or missing, or has another shape than `model.json` and manifest say.
        """
        files = [self._map(part, file) for part, file in self._files(VECTORS)]
        vectors = VectorBlocks([tensors["vectors"] for tensors in files])
        rows = sum(part.require().rows for part in (self, *self.deltas))
        if len(vectors) != rows:
            raise self.damaged(MANIFEST, f"it names {rows} items and {len(vectors)} vectors")
        scaled = self.model.similarity == "cosine"
        return vectors, VectorBlocks([tensors["lengths"][:, None] for tensors in files]) if scaled else None

    def index(self, vectors: VectorBlocks) -> ApproximateRanking:
        """The ranking by the approximate index, in the memory of its file.

        Args:
            vectors: those of this export and its deltas, whose items are not in the index.

        Raises:
            WorkspaceError: the export holds none, or it is damaged.
        """
        manifest = self.require()
        file = manifest.file(INDEX_FILE)
        if file is None:
            raise WorkspaceError(
                f"{self.folder.uri} holds no index for approximate search:",
                "make the export again with one, `alphafuse export CONFIG --set export.index=true --redo`",
            )
        with self._local(self, file) as path:
            try:
                return ApproximateRanking(vectors, path, manifest.rows)
            except (RuntimeError, ValueError) as error:
                raise self.damaged(INDEX_FILE, error) from error

    def _read_model(self) -> ExportedModel:
        try:
            fields = read_json_object(self.read_file(MODEL_FILE))
            written = fields.get("format", 0)
            if written != EXPORT_FORMAT:
                age = "a newer" if isinstance(written, int) and written > EXPORT_FORMAT else "an older"
                raise WorkspaceError(
                    f"{self.folder.uri} was exported by {age} version of alphafuse (format {written}, this one reads "
                    f"{EXPORT_FORMAT}): make it again with this version, `alphafuse export CONFIG --redo`"
                )
            return ExportedModel.model_validate(fields)
        except ValidationError as error:
            raise self.damaged(MODEL_FILE, "; ".join(fault["msg"] for fault in error.errors())) from error
        except ValueError as error:
            raise self.damaged(MODEL_FILE, error) from error

    def _files(self, kind: str, parts: Sequence[Artifact] = ()) -> list[tuple[Artifact, FileRecord]]:
        """The files of one kind with the parts that hold them, export and deltas, in the order of their items.

        Raises:
            WorkspaceError: the export names none.
        """
        files = [
            (part, file)
            for part in parts or (self, *self.deltas)
            for file in sorted(part.require().files, key=lambda file: file.first_row)
            if file.name.startswith(kind)
        ]
        if not files and not parts:
            raise self.damaged(MANIFEST, f"it names no file {kind}*")
        return files

    @contextmanager
    def _local(self, part: Artifact, file: FileRecord) -> Iterator[str]:
        """Context with the path of a file on this machine, checked; memory that maps it outlives the context.

        Raises:
            WorkspaceError: the file is missing, or differs from what was committed.
        """
        with tempfile.TemporaryDirectory(prefix="alphafuse-") as temporary:
            folder = part.folder
            with part.readable(file.name):
                if not isinstance(folder.open()[0], pafs.LocalFileSystem):
                    folder = Folder(temporary)
                    _copy(part.folder, folder, file.name)
                checksum = folder.sha256(file.name)
            if checksum != file.sha256:
                raise part.damaged(file.name, CHANGED)
            yield f"{folder.open()[1]}/{file.name}"

    def _map(self, part: Artifact, file: FileRecord) -> dict[str, torch.Tensor]:
        """The tensors of a file of vectors, checked, in the memory of the file."""
        rows, dim = file.details.get("rows"), self.model.item_dim
        expected = {"vectors": (rows, dim)} | ({"lengths": (rows,)} if self.model.similarity == "cosine" else {})
        with self._local(part, file) as path:
            try:
                with safetensors.safe_open(path, framework="pt") as stored:
                    tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            except safetensors.SafetensorError as error:
                raise part.damaged(file.name, error) from error
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != expected or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
            raise part.damaged(
                file.name, f"it holds {found}, where {MODEL_FILE} and manifest say {expected} of float32"
            )
        return tensors


@retried
def _copy(source: Folder, target: Folder, name: str) -> None:
    (theirs, folder), (own, path) = source.open(), target.open()
    pafs.copy_files(f"{folder}/{name}", f"{path}/{name}", source_filesystem=theirs, destination_filesystem=own)
