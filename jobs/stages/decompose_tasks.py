"""The tasks of the stage `decompose`: each streams over the rows of its shards, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from alphafuse.data.item_matching import match_items
from alphafuse.data.popularity import load_held_out
from alphafuse.errors import DataError
from alphafuse.nullspace.arithmetic import HOST, Arithmetic
from alphafuse.nullspace.decomposition import NullSpace
from alphafuse.nullspace.moments import Moments
from alphafuse.storage.filesystem.read_ahead import read_ahead
from alphafuse.storage.manifest import FileRecord
from alphafuse.storage.matrices import gather_rows, iterate_rows, to_column
from alphafuse.storage.workspace import Workspace

BLOCK_BYTES = 64 * 2**20
"""Size of a block of embeddings in float64, the unit in which a task holds them."""


def moments_of_shards(
    workspace: Workspace,
    shards: Sequence[FileRecord],
    dim: int,
    weighted: bool,
    some_held_out: bool,
    probe: np.ndarray | None,
    threads: int,
    device: str | None,
) -> Moments:
    """Moments of the embeddings of some shards, read block by block. Items that are held out of training are left out:
    training must not know of their texts.

    Args:
        device: the device of torch that computes; None: numpy does, on the host. It holds one block at a time.
    """
    arithmetic = _arithmetic(device)
    placed = None if probe is None else arithmetic.put(probe)
    moments = Moments.empty(dim, weighted=weighted, probe=placed)
    with threadpool_limits(threads):
        for shard in shards:
            weights = _popularity(workspace, shard) if weighted else None
            stop = shard.first_row + shard.rows
            held_out = load_held_out(workspace, shard.first_row, stop) if some_held_out else None
            for first, block, present in _blocks(workspace, shard, dim):
                part = slice(first - shard.first_row, first - shard.first_row + len(block))
                block_weights = None if weights is None else weights[part]
                if held_out is not None:
                    present = present & ~held_out[part]
                of_block = Moments.of(
                    block, present, block_weights, probe=placed, first_row=first, arithmetic=arithmetic
                )
                moments = moments.merge(of_block)
    return moments.fetched(arithmetic)


def eigen(covariance: np.ndarray, num_directions: int, threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All eigenvalues λ, descending, their eigenvectors u, and ‖C u − λ u‖ of the first `num_directions`."""
    with threadpool_limits(threads):
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = vectors[:, :num_directions]
        residuals = np.linalg.norm(covariance @ kept - kept * values[:num_directions], axis=0)
    return values, vectors, residuals


def write_features(
    workspace: Workspace, shard: FileRecord, nullspace: NullSpace, wanted: str, threads: int, parent: Workspace | None
) -> None:
    """Project one shard and write it under the same name.

    Args:
        parent: workspace with features by the same null space. Those of items whose embeddings are unchanged are taken
            over, since a projection in another block may be rounded otherwise.
    """
    batches = []
    known = None
    if parent is not None:
        catalogs = workspace.artifact("catalog"), parent.artifact("catalog")
        known = match_items(catalogs[0], shard.first_row, shard.first_row + shard.rows, catalogs[1])
    with threadpool_limits(threads):
        for first, block, present in _blocks(workspace, shard, len(nullspace.mean)):
            features = np.where(present[:, None], nullspace.project(block), np.float32(0))  # [rows, hidden_dim]
            if parent is not None and known is not None:
                begin = first - shard.first_row
                _take_over(features, block, present, parent, known[begin : begin + len(block)])
            item_index = pa.array(np.arange(first, first + len(block), dtype=np.int64))
            batches.append(pa.record_batch([item_index, to_column(features)], names=["item_index", "features"]))
    table = pa.Table.from_batches(batches)
    workspace.artifact("features").write_table(shard.name, table, wanted, first_row=shard.first_row)


def rows_of_a_block(dim: int) -> int:
    """Rows of embeddings of `dim` dimensions that a task computes with at a time."""
    return min(max(BLOCK_BYTES // (8 * dim), 64), 8192)


def _arithmetic(device: str | None) -> Arithmetic:
    if device is None:
        return HOST
    import torch

    from alphafuse.distributed.devices import prepare_device
    from alphafuse.nullspace.torch_arithmetic import TorchArithmetic

    prepare_device(torch.device(device))
    return TorchArithmetic.on(torch.device(device))


def _take_over(
    features: np.ndarray, block: np.ndarray, present: np.ndarray, parent: Workspace, known: np.ndarray
) -> None:
    """Replace features, [rows, hidden_dim], by those of the parent where the embeddings, [rows, dim], are equal.

    Args:
        known: [rows], index of each item in the parent's catalog, −1 where it has none.
    """
    rows = np.flatnonzero((known >= 0) & present)
    if len(rows):
        embeddings, were_present = gather_rows(parent.artifact("embeddings"), "embedding", known[rows])
        same = were_present & (embeddings == block[rows]).all(axis=1)
        if same.any():
            features[rows[same]] = gather_rows(parent.artifact("features"), "features", known[rows[same]])[0]


def _blocks(workspace: Workspace, shard: FileRecord, dim: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first row, embeddings [rows, dim], present [rows]) of one shard, in blocks of bounded size.

    Raises:
        DataError: the shard's embeddings have another dimension.
    """
    artifact = workspace.artifact("embeddings")
    rows = iterate_rows(artifact, "embedding", shard.first_row, shard.first_row + shard.rows, rows_of_a_block(dim))
    for first, block, present in read_ahead(rows):
        if block.shape[1] != dim:
            raise DataError(
                f"{artifact.folder.uri}/{shard.name} holds embeddings of {block.shape[1]} dimensions, the first shard "
                f"of {dim}; make them with one model: `alphafuse run CONFIG --redo embed`"
            )
        yield first, block, present


def _popularity(workspace: Workspace, shard: FileRecord) -> np.ndarray:
    """[rows of the shard], training interactions of its items; 0 for items that are not listed."""
    artifact = workspace.artifact("popularity")
    first, stop = shard.first_row, shard.first_row + shard.rows

    def read(parquet: pq.ParquetFile) -> pa.Table:
        groups = (parquet.metadata.row_group(number).column(0).statistics for number in range(parquet.num_row_groups))
        needed = [number for number, items in enumerate(groups) if items.min < stop and items.max >= first]
        return parquet.read_row_groups(needed, columns=["item_index", "count"])

    counts = np.zeros(shard.rows)
    for file in artifact.require().files:
        items, numbers = (column.to_numpy() for column in artifact.read_parquet(file, read).columns)
        inside = (items >= first) & (items < stop)
        counts[items[inside] - first] = numbers[inside]
    return counts
