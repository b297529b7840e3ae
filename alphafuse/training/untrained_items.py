"""Vectors of items that came after a training, by the model as it is: their text in the kept null space, and zeros in
the place of what a training would have learnt of them, as a new item begins in an update.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import ConfigError
from alphafuse.items.table_building import build_table
from alphafuse.nullspace.decomposition import load_nullspace
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import iterate_rows, to_column
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import DENSE_FILE
from alphafuse.training.objectives.objective_building import build_objective
from alphafuse.training.scoring_model import ScoringModel


def write_features(workspace: Workspace, added: Workspace) -> None:
    """Project the embeddings of new items with the null space of the model; what is there is kept.

    Args:
        workspace: that of the model.
        added: a workspace with embeddings of the new items alone.
    """
    embeddings, features = added.artifact("embeddings"), added.artifact("features")
    nullspace = load_nullspace(workspace)
    origin = workspace.artifact("nullspace").require().fingerprint
    inputs = {"embeddings": embeddings.require().fingerprint, "nullspace": origin}
    if features.is_committed(inputs):
        return
    for file in embeddings.require().files:
        for first, block, present in iterate_rows(embeddings, "embedding", file.first_row, file.first_row + file.rows):
            rows = np.where(present[:, None], nullspace.project(block), np.float32(0))
            table = pa.table({"item_index": np.arange(first, first + len(rows)), "features": to_column(rows)})
            features.write_table(f"part-{first:012d}.parquet", table, fingerprint(inputs), first_row=first)
    features.commit(inputs, rows=added.artifact("catalog").require().rows)


@torch.no_grad()
def untrained_vectors(config: Config, workspace: Workspace, added: Workspace) -> tuple[torch.Tensor, np.ndarray]:
    """Compute the vectors of new items.

    Args:
        workspace: that of the model.
        added: a workspace with catalog, embeddings and features of the new items alone, as far as the encoder reads
            them.

    Returns:
        float32 [items, dim], and a mask, bool [items], False for items that have none before a training: those without
        an embedding.

    Raises:
        ConfigError: the encoder gives no item a vector before a training.
        WorkspaceError: the model or its null space are not there, or damaged.
    """
    alone, device = Communicator(), torch.device("cpu")
    workspace.require_origins("model")
    objective = build_objective(config, workspace, alone)
    objective.load_state_dict(safetensors.torch.load(workspace.artifact("model").read_file(DENSE_FILE)))
    encoder = objective.encoder
    table = build_table(config, added, encoder, alone, device, trains=False)
    if encoder.initialization != "features":
        table.trainable.zero_()
    vectors = ScoringModel(objective, table, config.model.history_length).item_vectors()
    parts = [present for _, _, present in iterate_rows(added.artifact("embeddings"), "embedding", 0, len(vectors))]
    has_text = np.concatenate(parts)
    known = has_text & vectors.any(dim=1).numpy()
    if has_text.any() and not known.any():
        raise ConfigError(
            f"the encoder {config.model.encoder.name!r} knows an item by training alone, so that none can be added "
            "between trainings: continue the model with `alphafuse update`"
        )
    return vectors, known
