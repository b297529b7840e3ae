"""Exports of made-up models of any size, for measurements of what serves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

from alphafuse.config import parse_config
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks
from alphafuse.recommenders.base import build_backbone
from alphafuse.serving.approximate_index import to_index
from alphafuse.serving.export_files import (
    INDEX_FILE,
    ITEMS,
    MODEL_FILE,
    VECTORS,
    WEIGHTS_FILE,
    ExportedModel,
    describe_model,
    vectors_to_bytes,
)
from alphafuse.serving.query_model import BACKBONE
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import to_lists
from alphafuse.storage.workspace import Workspace

TOPICS, TOPIC_DIM = 2000, 32
"""Items gather around topics in a space of few dimensions, as those of a language model do."""
SHARD = 50_000


def make_export(workspace: Path, items: int, dim: int, seed: int, index: bool = False) -> Path:
    """Write a workspace with the export of a model with random vectors and weights; returns the folder of the export.

    Args:
        items: number of items, whose ids are `item-0` and so on.
        seed: models of different seeds have the same items and different vectors.
        index: also write an approximate index.
    """
    torch.manual_seed(seed)
    config = parse_config(
        {
            "workspace": str(workspace),
            "seed": seed,
            "data": {"catalog": {"path": "none"}, "interactions": {"path": "none"}},
            "model": {"hidden_dim": dim, "history_length": 50, "encoder": {"name": "id"}},
        }
    )
    opened, made_by = Workspace(str(workspace)), {"made by": "benchmarks.common.made_exports", "seed": seed}
    model = opened.artifact("model")  # which a registry asks for
    model.write_file("made.json", json.dumps(made_by).encode(), fingerprint(made_by))
    model.commit(made_by)
    inputs = {"model": fingerprint(made_by)}
    artifact, wanted = opened.artifact("export"), fingerprint(inputs)
    description = describe_model(config, dim)
    weights = build_backbone(ExportedModel.model_validate(description), seed).state_dict()
    content = safetensors.torch.save({BACKBONE + name: value for name, value in weights.items()})
    artifact.write_file(WEIGHTS_FILE, content, wanted)
    artifact.write_file(MODEL_FILE, json.dumps(description).encode(), wanted)
    vectors = made_vectors(items, dim, seed)
    for first in range(0, items, SHARD):
        part = vectors[first : first + SHARD]
        rows = range(first, first + len(part))
        columns = {
            "item_index": pa.array(rows, pa.int64()),
            "item_id": [f"item-{row}" for row in rows],
            "title": [f"Item {row}" for row in rows],
            "vector": to_lists(part.numpy()),
        }
        artifact.write_table(f"{ITEMS}{first:012d}.parquet", pa.table(columns), wanted, first_row=first)
        name, details = f"{VECTORS}{first:012d}.safetensors", {"rows": len(part)}
        stored = vectors_to_bytes(part, config.similarity)
        artifact.write_file(name, stored, wanted, first_row=first, details=details)
    if index:
        unit = torch.nn.functional.normalize(vectors, dim=1)
        artifact.write_file(INDEX_FILE, to_index(VectorBlocks([unit])), wanted)
    artifact.commit(inputs, description, rows=items)
    return workspace / "export"


def made_vectors(items: int, dim: int, seed: int) -> torch.Tensor:
    """Vectors of items around topics, float32 [items, dim]."""
    generator = np.random.default_rng(seed)
    topics = generator.standard_normal((TOPICS, TOPIC_DIM), np.float32)
    near = topics[generator.integers(TOPICS, size=items)]
    near += 0.7 * generator.standard_normal((items, TOPIC_DIM), np.float32)
    rotation = generator.standard_normal((TOPIC_DIM, dim), np.float32) / np.sqrt(TOPIC_DIM, dtype=np.float32)
    return torch.from_numpy(near @ rotation + 0.3 * generator.standard_normal((items, dim), np.float32))
