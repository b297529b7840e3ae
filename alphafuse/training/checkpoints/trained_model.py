"""The artefact `model`, which a training ends with: its best weights, written by all ranks and loaded by any number."""

from __future__ import annotations

from typing import Any

import safetensors.torch
import torch

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.item_table import ItemTable
from alphafuse.items.table_building import build_table
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import DENSE_FILE
from alphafuse.training.checkpoints.table_rows import read_table_rows, write_table_rows
from alphafuse.training.objectives.objective_building import build_objective
from alphafuse.training.scoring_model import ScoringModel

MOMENTS_FILE = "dense-moments.safetensors"


def write_trained(
    workspace: Workspace,
    inputs: dict[str, Any],
    details: dict[str, Any],
    table: ItemTable,
    weights: dict[str, torch.Tensor],
    moments: dict[str, torch.Tensor],
    communicator: Communicator,
) -> None:
    """Write a model, with the moments from which an update goes on (`warm_start`). A collective: every rank writes its
    rows, rank 0 the dense weights and the manifest.

    Args:
        inputs: everything that the model is made from.
        details: facts to keep in the manifest.
        table: item table of the model.
        weights, moments: of the dense weights, as `DenseEngine` gives them.
    """
    artifact, wanted = workspace.artifact("model"), fingerprint(inputs)
    if communicator.rank == 0:
        artifact.clear()
    communicator.barrier()
    write_table_rows(artifact, wanted, table.first_row, {"rows": table.trainable})
    rows_moments = {"first_moment": table.first_moment, "second_moment": table.second_moment}
    write_table_rows(artifact, wanted, table.first_row, rows_moments, beside=True)
    if communicator.rank == 0:
        artifact.write_file(DENSE_FILE, safetensors.torch.save(weights), wanted)
        artifact.write_file(MOMENTS_FILE, safetensors.torch.save(moments), wanted)
    communicator.barrier()
    if communicator.rank == 0:
        artifact.commit(inputs, {**details, "table_steps": table.optimizer.steps}, rows=table.num_items)
    communicator.barrier()


def load_trained(
    config: Config, workspace: Workspace, communicator: Communicator, device: torch.device | None = None
) -> ScoringModel:
    """Load the best weights of a finished training.

    Raises:
        WorkspaceError: training has not finished, what it was made from is not there, or a file is damaged.
    """
    device = device or torch.device("cpu")
    artifact = workspace.artifact("model")
    workspace.require_origins("model")
    objective = build_objective(config, workspace, communicator)
    objective.load_state_dict(safetensors.torch.load(artifact.read_file(DENSE_FILE)))
    table = build_table(config, workspace, objective.encoder, communicator, device, trains=False)
    read_table_rows(artifact, table.first_row, {"rows": table.trainable})
    return ScoringModel(objective.to(device), table, config.model.history_length)
