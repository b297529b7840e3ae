"""A hand-made workspace, small enough to train on in a test: catalog, sequences, null space and features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

from alphafuse.config import Config, parse_config
from alphafuse.config.sections.resources import RankResources
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.table_building import build_table
from alphafuse.nullspace.decomposition import NullSpace, save_nullspace
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import to_column
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import DENSE_FILE
from alphafuse.training.checkpoints.table_rows import write_table_rows
from alphafuse.training.objectives.objective_building import build_objective

NUM_ITEMS = 30
HIDDEN_DIM = 8
EMBEDDING_DIM = 12
SCALE = 3.0
NULL_DIM = 3
NUM_USERS = 24


def tiny_config(folder: Path, backbone: dict[str, Any] | None = None, **train: Any) -> Config:
    """A configuration that fits `tiny_workspace`.

    Args:
        backbone: settings of the backbone; by default SASRec without dropout, so that ranks can be compared.
        train: settings of `train` and of `train.resources`.
    """
    resources = {name: train.pop(name) for name in RankResources.model_fields if name in train}
    return parse_config(
        {
            "workspace": str(folder),
            "seed": 7,
            "data": {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}},
            "decompose": {"null_dim": NULL_DIM, "scale": SCALE},
            "model": {
                "hidden_dim": HIDDEN_DIM,
                "history_length": 4,
                "encoder": {"name": "alphafuse", "initialization": "normal"},
                "backbone": backbone or {"dropout": 0.0},
            },
            "train": {
                "batch_size": 10,
                "max_epochs": 2,
                "learning_rate": 1e-2,
                "log_steps": 1,
                "averaging": None,  # definitions are simpler without
                "loss": {"num_negatives": 6},
                "resources": resources,
                **train,
            },
            "monitoring": {"targets": str(folder / "targets")},
        }
    )


def tiny_features() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((NUM_ITEMS, HIDDEN_DIM)).astype(np.float32)


def tiny_embeddings() -> np.ndarray:
    """Embeddings of unit length, like those of a language model."""
    vectors = np.random.default_rng(2).standard_normal((NUM_ITEMS, EMBEDDING_DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def tiny_nullspace() -> NullSpace:
    """A random orthonormal basis. `tiny_features` are not projections to it."""
    basis, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((EMBEDDING_DIM, HIDDEN_DIM)))
    eigenvalues = np.arange(HIDDEN_DIM, 0.0, -1.0)
    return NullSpace(
        mean=SCALE * tiny_embeddings().mean(axis=0, dtype=np.float64),
        basis=basis,
        eigenvalues=eigenvalues,
        spectrum=eigenvalues,
        total_variance=float(eigenvalues.sum()),
        scale=SCALE,
        null_dim=NULL_DIM,
        standardize=True,
        method="gram",
    )


def tiny_sequences() -> list[list[int]]:
    generator = np.random.default_rng(1)
    return [generator.integers(NUM_ITEMS, size=generator.integers(3, 9)).tolist() for _ in range(NUM_USERS)]


def tiny_workspace(
    folder: Path,
    validation_users: int = 3,
    row_group_size: int = 8192,
    sequences: list[list[int]] | None = None,
    without_text: Sequence[int] = (),
) -> Workspace:
    """Write the artefacts that training reads, for `tiny_sequences` or other sequences of as many users. The first 18
    users train, the next `validation_users` validate, the others test."""
    workspace = Workspace(str(folder))
    inputs = {"made by": "hand"}
    wanted = fingerprint(inputs)
    index = pa.array(range(NUM_ITEMS), pa.int64())
    names = [f"item {number}" for number in range(NUM_ITEMS)]
    items = sequences or tiny_sequences()
    ends = [[len(s) if u < users else 0 for u, s in enumerate(items)] for users in (18, 18 + validation_users)]
    users = pa.table(
        {
            "user_id": [f"user {number}" for number in range(NUM_USERS)],
            "items": pa.array(items, pa.list_(pa.int64())),
            "train_end": pa.array(ends[0], pa.int32()),
            "validation_end": pa.array(
                [len(s) if u < 18 + validation_users else 0 for u, s in enumerate(items)], pa.int32()
            ),
        }
    )
    tested = sum(len(sequence) - 1 for sequence in items[18 + validation_users :])
    counts = np.bincount(np.concatenate(items[:18]), minlength=NUM_ITEMS)
    catalog = pa.table({"item_index": index, "item_id": names, "text": names, "title": names})
    features, embeddings = tiny_features(), tiny_embeddings()
    missing = np.isin(np.arange(NUM_ITEMS), without_text)
    features[missing] = 0
    tables = {
        "catalog": [catalog.slice(0, 20), catalog.slice(20)],
        "sequences": [users],
        "features": [
            pa.table({"item_index": index.slice(a, b - a), "features": to_column(features[a:b])})
            for a, b in ((0, 20), (20, NUM_ITEMS))
        ],
        "embeddings": [pa.table({"item_index": index, "embedding": to_column(embeddings, missing)})],
    }
    details = {"sequences": {"targets": {"test": tested}}, "embeddings": {"dim": EMBEDDING_DIM}}
    for name, shards in tables.items():
        artifact, first = workspace.artifact(name), 0
        for number, shard in enumerate(shards):
            name = f"part-{number:05d}.parquet"
            artifact.write_table(name, shard, wanted, first_row=first, row_group_size=row_group_size)
            first += shard.num_rows
        artifact.commit(inputs, details.get(artifact.name))
    popularity = workspace.artifact("popularity")
    popularity.write_table("popularity.parquet", pa.table({"item_index": index, "count": counts}), wanted)
    popularity.commit(inputs)
    save_nullspace(tiny_nullspace(), workspace.artifact("nullspace"), inputs)
    return workspace


def hold_out(workspace: Workspace, held_out: np.ndarray) -> None:
    """Rewrite the popularity with the items that are held out of training, bool [items]."""
    popularity, inputs = workspace.artifact("popularity"), {"made by": "hand"}
    table = popularity.read_table(popularity.file("popularity.parquet")).append_column("held_out", pa.array(held_out))
    popularity.write_table("popularity.parquet", table, fingerprint(inputs))
    popularity.commit(inputs)


def tiny_model(workspace: Workspace, config: Config, made_by: str = "hand") -> None:
    """Write a `model` artefact with random rows, for tests to which training does not matter."""
    communicator, artifact, inputs = Communicator(), workspace.artifact("model"), {"made by": made_by}
    objective = build_objective(config, workspace, communicator)
    table = build_table(config, workspace, objective.encoder, communicator, torch.device("cpu"))
    for first, stop in ((0, 13), (13, NUM_ITEMS)):  # as two ranks would have written it
        write_table_rows(artifact, fingerprint(inputs), first, {"rows": table.trainable[first:stop]})
    artifact.write_file(DENSE_FILE, safetensors.torch.save(objective.state_dict()), fingerprint(inputs))
    artifact.commit(inputs, {"best": {"epoch": 1}})
