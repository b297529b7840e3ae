"""The stage `export`: all that a serving system needs, in common formats (`alphafuse.serving.export_files`)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

from alphafuse.config import Config
from alphafuse.data.catalog_lookup import item_names
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks
from alphafuse.events import Listener, Progress, Summary
from alphafuse.extras import require_package
from alphafuse.serving.approximate_index import to_index
from alphafuse.serving.export_files import (
    INDEX_FILE,
    ITEMS,
    MODEL_FILE,
    ONNX_FILE,
    VECTORS,
    WEIGHTS_FILE,
    ExportedModel,
    describe_model,
    vectors_to_bytes,
)
from alphafuse.serving.onnx_query import to_onnx
from alphafuse.serving.query_model import load_query_model
from alphafuse.stages import EXPORT
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import to_lists
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import DENSE_FILE
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.execution.reporting.worker_metrics import serving
from jobs.execution.worker_group import run_workers

ITEMS_PER_SHARD = 50_000
SUFFIX = ".safetensors"


def require_packages(config: Config) -> None:
    """Check that the formats of the export can be written.

    Raises:
        MissingPackageError: a package is not installed.
    """
    if config.export.onnx:
        require_package("onnxscript", "export.onnx")
    if config.export.index:
        require_package("usearch", "export.index")


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Write the artefact `export` (docs/workspace.md); returns its summary, None where it was there already."""
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
    """Every rank writes its own range of items, in files named by their first item, and the first rank the rest;
    returns what `model.json` holds."""
    artifact, catalog = workspace.artifact("export"), workspace.artifact("catalog")
    model = load_trained(config, workspace, communicator, device)
    vectors = model.item_vectors().cpu()
    description = describe_model(config, vectors.shape[1])
    if communicator.rank == 0:
        artifact.clear()  # ranges of an interrupted attempt may have been cut for another number of workers
        weights = workspace.artifact("model").read_file(DENSE_FILE)
        artifact.write_file(WEIGHTS_FILE, weights, wanted)
        artifact.write_file(MODEL_FILE, json.dumps(description, indent=1).encode(), wanted)
        if config.export.onnx:
            exported = ExportedModel.model_validate(description)
            artifact.write_file(ONNX_FILE, to_onnx(load_query_model(exported, weights), exported), wanted)
    communicator.barrier()
    for start in range(0, len(vectors), ITEMS_PER_SHARD):
        part = vectors[start : start + ITEMS_PER_SHARD]
        first, stop = model.first_row + start, model.first_row + start + len(part)
        names = item_names(catalog, np.arange(first, stop))
        table = names.append_column("vector", pa.chunked_array([to_lists(part.numpy())]))
        artifact.write_table(f"{ITEMS}{first:012d}.parquet", table, wanted, first_row=first)
        content, details = vectors_to_bytes(part, config.similarity), {"rows": len(part)}
        # Its rows are those of the table, which are counted there.
        name = f"{VECTORS}{first:012d}{SUFFIX}"
        artifact.write_file(name, content, wanted, first_row=first, details=details)
        if communicator.rank == 0:
            listen(Progress(EXPORT.name, start + len(part), len(vectors), "items of the first worker"))
    communicator.barrier()
    if config.export.index and communicator.rank == 0:
        artifact.write_file(INDEX_FILE, to_index(_all_vectors(artifact)), wanted)
    return description


def _all_vectors(artifact: Artifact) -> VectorBlocks:
    """The vectors that all ranks have written, as they are ranked: [items, dim]."""
    names = (name for name in artifact.folder.names() if name.startswith(VECTORS) and name.endswith(SUFFIX))
    files = (safetensors.torch.load(artifact.folder.read_bytes(name)) for name in sorted(names))
    return VectorBlocks([tensors["vectors"] for tensors in files])
