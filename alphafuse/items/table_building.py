"""Builds a rank's rows of the item table: features from the workspace, trainable rows at their initial values."""

from __future__ import annotations

import torch

from alphafuse.config import Config
from alphafuse.data.popularity import load_held_out
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.base import FrozenFeatures, ItemEncoder
from alphafuse.items.item_table import ItemTable
from alphafuse.items.row_adam import RowAdam
from alphafuse.storage.matrices import iterate_rows
from alphafuse.storage.workspace import Workspace

BLOCK_ROWS = 65_536
"""Rows searched for missing texts at a time."""


def build_table(
    config: Config,
    workspace: Workspace,
    encoder: ItemEncoder,
    communicator: Communicator,
    device: torch.device,
    trains: bool = True,
) -> ItemTable:
    """Build this rank's rows of the item table: features from the workspace, trainable rows at their initial values.

    Args:
        trains: False leaves out what only an update needs.
    """
    num_items = workspace.artifact("catalog").require().rows
    frozen = encoder.frozen
    feature_dim = 0 if frozen is None else frozen.dim
    optimizer = RowAdam(weight_decay=config.train.weight_decay)
    table = ItemTable(num_items, feature_dim, encoder.trainable_dim, optimizer, communicator, device, trains)
    initialise_table(table, config, workspace, encoder, communicator)
    return table


def initialise_table(
    table: ItemTable, config: Config, workspace: Workspace, encoder: ItemEncoder, communicator: Communicator
) -> None:
    """Put a table into the state in which a training begins. Arguments are those of `build_table`."""
    frozen, device = encoder.frozen, table.trainable.device
    table.optimizer.steps = 0
    table.first_moment.zero_()
    table.second_moment.zero_()
    start, stop = table.partition.range(communicator.rank)
    for first in range(start, stop, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, stop)
        table.trainable[first - start : last - start] = encoder.initial_rows(first, last, config.seed).to(device)
    # Held-out items are known by their text alone: no step touches their rows.
    held_out = torch.from_numpy(load_held_out(workspace, start, stop)).to(device)
    table.trainable[held_out] = 0
    if encoder.initialization == "features":
        _fill(FrozenFeatures("features", slice(0, encoder.trainable_dim)), workspace, start, table.trainable)
    if frozen is not None:
        _fill(frozen, workspace, start, table.features)
    _initialise_without_text(encoder, table, held_out, config.seed)


def _initialise_without_text(encoder: ItemEncoder, table: ItemTable, held_out: torch.Tensor, seed: int) -> None:
    """Give the trainable rows of items without a text the values of "normal", where their vectors would be zeros.

    A vector of zeros has no direction: its first gradient from a cosine would be of the size 1 / `SHORTEST`.

    Args:
        held_out: bool [rows of this rank]; held-out items stay as they are.
    """
    text = table.trainable if encoder.initialization == "features" else table.features  # [rows, dim]
    if encoder.initialization == "normal" or not (encoder.trainable_dim and text.shape[1]):
        return
    for first in range(0, len(text), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        bare = ~(text[block].any(dim=1) | held_out[block])  # [rows of the block]
        if bare.any():
            begin = table.first_row + first
            rows = encoder.normal_rows(begin, begin + len(bare), seed).to(text.device)
            table.trainable[block][bare] = rows[bare]


def _fill(frozen: FrozenFeatures, workspace: Workspace, start: int, rows: torch.Tensor) -> None:
    """Fill `rows` [rows, dim] with the features of the items from `start` on."""
    column = {"features": "features", "embeddings": "embedding"}[frozen.artifact]
    for first, block, present in iterate_rows(workspace.artifact(frozen.artifact), column, start, start + len(rows)):
        values = frozen.scale * torch.tensor(block[:, frozen.columns], dtype=rows.dtype)
        if frozen.mean is not None:
            values[torch.from_numpy(present)] -= torch.from_numpy(frozen.mean)
        rows[first - start : first - start + len(block)] = values.to(rows.device)
