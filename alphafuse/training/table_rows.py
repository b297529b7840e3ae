"""Rows of the item table in files: every rank writes its rows in blocks, and reads its rows from any blocks.

A block at a time is copied from and to the device, so that neither it nor the host needs room for the rows of a rank
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import safetensors.torch
import torch

from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import FileRecord

BLOCK_BYTES = 256 << 20
"""Size of a file; the last one of a rank is smaller."""
BESIDE = "moments"
"""Name of the files with tensors that lie beside the rows, and of the number of rows among the details of each."""


def write_table_rows(
    artifact: Artifact, wanted: str, first_row: int, tensors: Mapping[str, torch.Tensor], beside: bool = False
) -> None:
    """Write the rows of a rank as files named after the first row in each; ranks without rows write nothing.

    Args:
        wanted: fingerprint of what the artefact is made from.
        first_row: item index of the first of the rows.
        tensors: [rows of this rank, dim] each, by name.
        beside: True for tensors of which other files of the artefact hold the same rows; they are read by themselves.
    """
    rows = len(next(iter(tensors.values())))
    row_bytes = sum(tensor.shape[1] * tensor.element_size() for tensor in tensors.values())
    block_rows = max(1, BLOCK_BYTES // row_bytes if row_bytes else rows)
    for start in range(0, rows, block_rows):
        block = {name: tensor[start : start + block_rows].contiguous().cpu() for name, tensor in tensors.items()}
        first, count = first_row + start, min(block_rows, rows - start)
        content = safetensors.torch.save(block)
        if beside:
            details = {BESIDE: count}  # rows that are counted in another file
            artifact.write_file(_name(BESIDE, first), content, wanted, first_row=first, details=details)
        else:
            artifact.write_file(_name("table", first), content, wanted, rows=count, first_row=first)


def read_table_rows(artifact: Artifact, first_row: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill `tensors`, [rows of this rank, dim] each, with what was written under their names, by any number of ranks.

    Raises:
        WorkspaceError: rows are missing, or a file is damaged.
    """
    rows = len(next(iter(tensors.values())))
    stop, found = first_row + rows, 0
    for file in artifact.require().files:
        low, high = max(first_row, file.first_row), min(stop, file.first_row + file.rows)
        if low < high:
            own, theirs = slice(low - first_row, high - first_row), slice(low - file.first_row, high - file.first_row)
            for name, block in _read_block(artifact, file, tensors).items():
                tensors[name][own] = block[theirs]
            found += high - low
    if found != rows:
        raise artifact.damaged("manifest.json", f"it names {found} of the {rows} rows [{first_row}, {stop})")


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
            for name, block in _read_block(artifact, file, tensors).items():
                tensor = tensors[name]
                tensor[torch.from_numpy(chosen).to(tensor.device)] = block[theirs].to(tensor.device)


def _read_block(artifact: Artifact, file: FileRecord, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The tensors with these names in a file."""
    try:
        block = safetensors.torch.load(artifact.read_committed(file))
        return {name: block[name] for name in names}
    except (safetensors.SafetensorError, KeyError) as error:
        raise artifact.damaged(file.name, error) from error


def _name(kind: str, first_row: int) -> str:
    return f"{kind}-{first_row:012d}.safetensors"
