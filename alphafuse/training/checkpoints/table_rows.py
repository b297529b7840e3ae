"""Rows of the item table in files: every rank writes its rows as one or several files, and reads its rows from any.

A file is laid out in the memory of the host as safetensors would write it, so that rows are copied once, from the
device into the file, and the file can be written while the table goes on changing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import FileRecord

FILE_BYTES = 1 << 30
"""Size of a file; the last one of a rank is smaller."""
BESIDE = "moments"
"""Name of the files with tensors that lie beside the rows, and of the number of rows among the details of each."""


@dataclass(frozen=True)
class RowFile:
    """Some rows of a rank, as a file of safetensors in the memory of the host; where rows come from a GPU in pinned
    memory, from which nothing is swapped, so that the GPU copies into it by itself.

    Attributes:
        first_row: item index of the first row.
        memory: uint8 [bytes of the file].
        tensors: the parts of `memory` that hold the rows, [rows, dim] each, by name.
    """

    first_row: int
    memory: torch.Tensor
    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def like(cls, first_row: int, tensors: Mapping[str, torch.Tensor]) -> RowFile:
        """A file with room for these tensors, float32 [rows, dim] each, which are not copied."""
        ends = np.cumsum([0, *(tensor.numel() * tensor.element_size() for tensor in tensors.values())]).tolist()
        places = dict(zip(tensors, itertools.pairwise(ends), strict=True))
        facts = {
            name: {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": places[name]}
            for name, tensor in tensors.items()
        }
        header = json.dumps(facts).encode()
        header += b" " * (-len(header) % 8)  # the format aligns the tensors
        start = 8 + len(header)
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        memory = torch.empty(start + ends[-1], dtype=torch.uint8, pin_memory=on_gpu)
        memory[:start] = torch.frombuffer(bytearray(len(header).to_bytes(8, "little") + header), dtype=torch.uint8)
        parts = {}
        for name, tensor in tensors.items():
            begin, end = places[name]
            parts[name] = memory[start + begin : start + end].view(tensor.dtype).view(tensor.shape)
        return cls(first_row, memory, parts)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def copy_from(self, first_row: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy rows from `tensors`, [rows of this rank, dim] each, whose first row is `first_row`. A copy from a GPU
        goes on after the return, until the GPU is waited for."""
        start = self.first_row - first_row
        for name, part in self.tensors.items():
            part.copy_(tensors[name][start : start + len(self)], non_blocking=True)

    def write(self, artifact: Artifact, wanted: str, beside: bool = False) -> None:
        """Write the file, with the fingerprint of what the artefact is made from."""
        content = pa.py_buffer(self.memory.numpy())
        if beside:
            details = {BESIDE: len(self)}  # rows that are counted in another file
            artifact.write_file(
                _name(BESIDE, self.first_row), content, wanted, first_row=self.first_row, details=details
            )
        else:
            name = _name("table", self.first_row)
            artifact.write_file(name, content, wanted, rows=len(self), first_row=self.first_row)


def row_files(first_row: int, tensors: Mapping[str, torch.Tensor]) -> Iterable[RowFile]:
    """Yield empty files with room for the rows of a rank; none for a rank without rows.

    Args:
        first_row: item index of the first of the rows.
        tensors: [rows of this rank, dim] each, by name.
    """
    rows = len(next(iter(tensors.values())))
    row_bytes = sum(tensor.shape[1] * tensor.element_size() for tensor in tensors.values())
    file_rows = max(1, FILE_BYTES // row_bytes if row_bytes else rows)
    for start in range(0, rows, file_rows):
        some = {name: tensor[start : start + file_rows] for name, tensor in tensors.items()}
        yield RowFile.like(first_row + start, some)


def copy_rows(files: Sequence[RowFile], first_row: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy the rows of a rank into its files; returns when they are there."""
    for file in files:
        file.copy_from(first_row, tensors)
    device = next(iter(tensors.values())).device
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def write_table_rows(
    artifact: Artifact, wanted: str, first_row: int, tensors: Mapping[str, torch.Tensor], beside: bool = False
) -> None:
    """Write the rows of a rank as files named after the first row in each, one after the other; ranks without rows
    write nothing.

    Args:
        wanted: fingerprint of what the artefact is made from.
        first_row: item index of the first of the rows.
        tensors: [rows of this rank, dim] each, by name.
        beside: True for tensors of which other files of the artefact hold the same rows; they are read by themselves.
    """
    for file in row_files(first_row, tensors):
        copy_rows([file], first_row, tensors)
        file.write(artifact, wanted, beside)


def fill_table_rows(artifact: Artifact, first_row: int, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Fill `tensors`, [rows of this rank, dim] each, with what was written under their names, by any number of ranks.
    A file is read once, and only if it holds rows of this rank.

    Returns:
        Names of files that are missing or damaged; where there are some, `tensors` are filled in part.

    Raises:
        WorkspaceError: the manifest does not name all rows, or a file lacks a name.
    """
    rows = len(next(iter(tensors.values())))
    stop, found, damaged = first_row + rows, 0, []
    for file in artifact.require().files:
        low, high = max(first_row, file.first_row), min(stop, file.first_row + file.rows)
        if low >= high:
            continue
        found += high - low
        content = artifact.read_if_whole(file)
        if content is None:
            damaged.append(file.name)
            continue
        own, theirs = slice(low - first_row, high - first_row), slice(low - file.first_row, high - file.first_row)
        for name, block in _tensors(artifact, file, content, tensors).items():
            tensors[name][own] = block[theirs]
    if found != rows:
        raise artifact.damaged("manifest.json", f"it names {found} of the {rows} rows [{first_row}, {stop})")
    return damaged


def read_table_rows(artifact: Artifact, first_row: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill `tensors` as `fill_table_rows` does.

    Raises:
        WorkspaceError: rows are missing, or a file is damaged.
    """
    if damaged := fill_table_rows(artifact, first_row, tensors):
        raise artifact.damaged(damaged[0], "it is missing, or its checksum differs from the manifest's")


def read_chosen_rows(
    artifact: Artifact, rows: np.ndarray, tensors: Mapping[str, torch.Tensor], beside: bool = False
) -> None:
    """Fill rows of `tensors`, [count, dim] each, with some that were written under their names.

    Args:
        rows: int64 [count], item indices in the artefact; −1 leaves a row as it is.
        beside: as in `write_table_rows`.

    Raises:
        WorkspaceError: a file is damaged.
    """
    for file in artifact.require().files:
        count = file.details.get(BESIDE, 0) if beside else file.rows
        chosen = np.flatnonzero((rows >= file.first_row) & (rows < file.first_row + count))
        if len(chosen):
            theirs = torch.from_numpy(rows[chosen] - file.first_row)
            for name, block in _tensors(artifact, file, artifact.read_committed(file), tensors).items():
                tensor = tensors[name]
                tensor[torch.from_numpy(chosen).to(tensor.device)] = block[theirs].to(tensor.device)


def _tensors(artifact: Artifact, file: FileRecord, content: bytes, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The tensors with these names in the content of a file."""
    try:
        block = safetensors.torch.load(content)
        return {name: block[name] for name in names}
    except (safetensors.SafetensorError, KeyError) as error:
        raise artifact.damaged(file.name, error) from error


def _name(kind: str, first_row: int) -> str:
    return f"{kind}-{first_row:012d}.safetensors"
