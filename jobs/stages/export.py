"""The stage `export`: item vectors and weights for an ANN index or a serving system, in common formats."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from alphafuse.config import Config
from alphafuse.data.catalog_lookup import item_names
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Listener, Progress, Summary
from alphafuse.stages import EXPORT
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import to_lists
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoint import DENSE_FILE
from alphafuse.training.trained_model import load_trained
from jobs.execution.worker_group import run_workers
from jobs.execution.worker_metrics import serving

ITEMS_PER_SHARD = 50_000
WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.json"


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Write the artefact `export`; returns its summary, None where it was there already.

    `items-*.parquet`: item_index, item_id and vector (float32, as the backbone takes it; for similarity `cosine`
    an index must scale to unit length); `weights.safetensors`: dense weights; `model.json`: the model that they fit.
    """
    artifact = workspace.artifact("export")
    inputs = EXPORT.inputs(config, workspace)
    if artifact.is_committed(inputs):
        return None
    arguments = {"config": config, "workspace": workspace, "wanted": fingerprint(inputs)}
    description = run_workers(EXPORT, _export_on_worker, config.train.resources, arguments, listen, serving(config))
    manifest = artifact.commit(inputs, description, rows=workspace.artifact("catalog").require().rows)
    return {"items": manifest.rows}


def _export_on_worker(
    *,
    config: Config,
    workspace: Workspace,
    wanted: str,
    communicator: Communicator,
    device: torch.device,
    listen: Listener,
) -> dict[str, Any]:
    """Every rank writes the vectors of its own range of items, in files named by their first item, and the first rank
    the rest; returns what `model.json` holds."""
    artifact, catalog = workspace.artifact("export"), workspace.artifact("catalog")
    # With the seed, since a diffusion starts from noise that is drawn from it.
    description = {"similarity": config.similarity, "seed": config.seed, **config.model.model_dump(mode="json")}
    if communicator.rank == 0:
        artifact.clear()  # ranges of an interrupted attempt may have been cut for another number of workers
        artifact.write_file(WEIGHTS_FILE, workspace.artifact("model").read_file(DENSE_FILE), wanted)
        artifact.write_file(MODEL_FILE, json.dumps(description, indent=1).encode(), wanted)
    communicator.barrier()
    model = load_trained(config, workspace, communicator, device)
    vectors = model.item_vectors().cpu().numpy()
    item_ids = item_names(catalog, np.arange(model.first_row, model.first_row + len(vectors)), ["item_id"])["item_id"]
    for start in range(0, len(vectors), ITEMS_PER_SHARD):
        part = slice(start, start + ITEMS_PER_SHARD)
        first = model.first_row + start
        index = pa.array(range(first, first + len(vectors[part])), pa.int64())
        table = pa.table({"item_index": index, "item_id": item_ids[part], "vector": to_lists(vectors[part])})
        artifact.write_table(f"items-{first:012d}.parquet", table, wanted, first_row=first)
        if communicator.rank == 0:
            listen(Progress(EXPORT.name, start + len(index), len(vectors), "items of the first worker"))
    communicator.barrier()
    return description
