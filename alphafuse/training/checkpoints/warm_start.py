"""Starts the training of an update where the parent's ended: rows, dense weights and their moments are carried over.

Rows follow their items by id, whatever the numbers of the rows and of the ranks. Every rank reads what its own rows
need; nothing travels between ranks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import safetensors.torch
import torch

from alphafuse.config import Config, TrainConfig
from alphafuse.data.item_matching import match_items
from alphafuse.data.popularity import load_held_out
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import ConfigError
from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import ItemTable
from alphafuse.nullspace.drift import RECOMPUTED
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import DENSE_FILE
from alphafuse.training.checkpoints.table_rows import read_chosen_rows
from alphafuse.training.checkpoints.trained_model import MOMENTS_FILE
from alphafuse.training.engine import MOMENTS, DenseEngine

BLOCK_ROWS = 65_536
"""New items whose vectors are computed at a time."""


@dataclass(frozen=True)
class WarmStart:
    """Facts about the start of a training.

    Attributes:
        carried, new, removed: numbers of items that both catalogs have, of those that the parent's lacks, and of those
            that only the parent's has.
        moments: True if the parent has kept the moments of its rows and weights; else they begin at zero.
    """

    carried: int
    new: int
    removed: int
    moments: bool

    def summary(self) -> dict[str, int | bool]:
        """The facts for manifests and reports."""
        return asdict(self)


def is_warm(config: Config, workspace: Workspace) -> bool:
    """Tell whether a training continues the parent's model: in an update, unless the null space has been recomputed."""
    if config.update.parent is None:
        return False
    if {"features", "nullspace"}.isdisjoint(config.model.encoder.reads):
        return True
    kind: str = workspace.artifact("nullspace").require().details["update"]["kind"]
    return kind != RECOMPUTED


def shortened(config: Config) -> TrainConfig:
    """Settings of the training of an update: most of what it learns is known already."""
    train, update = config.train, config.update
    lengths = {
        "max_epochs": min(train.max_epochs, update.max_epochs),
        "patience": min(train.patience, update.patience),
    }
    return train.model_copy(update=lengths)


def warm_start(
    config: Config,
    workspace: Workspace,
    encoder: ItemEncoder,
    table: ItemTable,
    engine: DenseEngine,
    communicator: Communicator,
) -> WarmStart:
    """Carry the parent's model into this rank's table and engine, which are at their initial values. A collective.

    Items that the parent lacks, and those that are held out of training, stay there, with zeros for moments: as rows
    that no step has touched. A random row becomes zeros where the item has a vector without it: in AlphaFuse a new
    item begins as its text alone.

    Raises:
        WorkspaceError: the parent's model or catalog is not there, or damaged.
        ConfigError: its dense weights have other shapes.
    """
    parent = workspace.other(config.update.parent or "")
    model, catalog = parent.artifact("model"), parent.artifact("catalog")
    details, rows = model.require().details, len(table.trainable)
    first, stop = table.first_row, table.first_row + rows
    found = match_items(workspace.artifact("catalog"), first, stop, catalog)
    carried = int(communicator.all_reduce(torch.tensor(int((found >= 0).sum()))))
    has_moments = "table_steps" in details
    held_out = load_held_out(workspace, first, stop)
    if table.trainable.shape[1]:
        if encoder.initialization == "normal":
            _start_as_text_alone(encoder, table, (found < 0) & ~held_out)
        known = np.where(held_out, -1, found)
        read_chosen_rows(model, known, {"rows": table.trainable})
        if has_moments:
            moments = {"first_moment": table.first_moment, "second_moment": table.second_moment}
            read_chosen_rows(model, known, moments, beside=True)
            table.optimizer.steps = details["table_steps"]
    engine.load_state(_dense_state(model, engine, has_moments))
    return WarmStart(carried, table.num_items - carried, catalog.require().rows - carried, has_moments)


@torch.no_grad()
def _start_as_text_alone(encoder: ItemEncoder, table: ItemTable, new: np.ndarray) -> None:
    """Set the rows of new items, bool [rows of this rank], to zero where their vectors are not zero then."""
    for rows in np.array_split(np.flatnonzero(new), max(1, -(-int(new.sum()) // BLOCK_ROWS))):
        chosen = torch.from_numpy(rows).to(table.trainable.device)
        zeros = torch.zeros_like(table.trainable[chosen])
        directed = encoder(table.features[chosen], zeros).any(dim=1)
        table.trainable[chosen[directed]] = 0


def _dense_state(model: Artifact, engine: DenseEngine, has_moments: bool) -> dict[str, torch.Tensor]:
    """The state of the parent's dense weights in the form of `DenseEngine.load_state`."""
    own = engine.weights()
    weights = safetensors.torch.load(model.read_file(DENSE_FILE))
    wanted = {name: tuple(value.shape) for name, value in own.items()}
    shapes = {name: tuple(value.shape) for name, value in weights.items() if name in wanted}
    if shapes != wanted:
        odd = next(name for name in wanted if shapes.get(name) != wanted[name])
        raise ConfigError(
            f"the weights {odd!r} of {model.folder.uri} have the shape {shapes.get(odd)}, where this model has "
            f"{wanted[odd]}: train from scratch, with `alphafuse run` and without update.parent"
        )
    if has_moments:
        return weights | safetensors.torch.load(model.read_file(MOMENTS_FILE))
    zeros = {f"{name}.{moment}": torch.zeros_like(value) for name, value in own.items() for moment in MOMENTS}
    return {**weights, **zeros, "adam_steps": torch.tensor(0.0)}
