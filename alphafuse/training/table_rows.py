"""Rows of the item table in files: every rank writes its rows in blocks, and reads its rows from any blocks.

A block at a time is copied from and to the device, so that neither it nor the host needs room for the rows of a rank
again.
"""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch

from alphafuse.storage.artifact import Artifact

BLOCK_BYTES = 256 << 20
"""Size of a file; the last one of a rank is smaller."""


def write_table_rows(artifact: Artifact, wanted: str, first_row: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write the rows of a rank as files named after the first row in each; ranks without rows write nothing.

    Args:
        wanted: fingerprint of what the artefact is made from.
        first_row: item index of the first of the rows.
        tensors: [rows of this rank, dim] each, by name.
    """
    rows = len(next(iter(tensors.values())))
    row_bytes = sum(tensor.shape[1] * tensor.element_size() for tensor in tensors.values())
    block_rows = max(1, BLOCK_BYTES // row_bytes if row_bytes else rows)
    for start in range(0, rows, block_rows):
        block = {name: tensor[start : start + block_rows].contiguous().cpu() for name, tensor in tensors.items()}
        first, count = first_row + start, min(block_rows, rows - start)
        name = f"table-{first:012d}.safetensors"
        artifact.write_file(name, safetensors.torch.save(block), wanted, rows=count, first_row=first)


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
            try:
                block = safetensors.torch.load(artifact.read_committed(file))
                for name, tensor in tensors.items():
                    tensor[own] = block[name][theirs]
            except (safetensors.SafetensorError, KeyError) as error:
                raise artifact.damaged(file.name, error) from error
            found += high - low
    if found != rows:
        raise artifact.damaged("manifest.json", f"it names {found} of the {rows} rows [{first_row}, {stop})")
