"""The evaluate stage: the trained model ranks the full catalog for every test target."""

from __future__ import annotations

import json
from typing import Any

import torch

from alphafuse.collectives import Communicator
from alphafuse.config import Config
from alphafuse.data.popularity import load_popularity
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.evaluation.evaluator import evaluate
from alphafuse.events import Event, Listener
from alphafuse.training.model import load_trained
from alphafuse.workspace import Workspace, fingerprint
from jobs.worker_group import run_workers

METRICS_FILE = "metrics.json"

# What changes where and how fast queries are ranked, but not their ranks.
RESOURCE_KEYS = {"similarity", "query_batch"}


def run(config: Config, workspace: Workspace, listen: Listener) -> None:
    """Write the artefact `evaluation` with `metrics.json` (see `alphafuse.evaluation.evaluator.evaluate`), unless the
    split tests nothing."""
    artifact = workspace.artifact("evaluation")
    inputs = {
        "model": workspace.artifact("model").require().fingerprint,
        "similarity": config.similarity,
        "evaluate": config.evaluate.model_dump(mode="json", exclude=RESOURCE_KEYS),
    }
    if artifact.is_committed(inputs):
        return
    if workspace.artifact("sequences").require().details.get("targets", {}).get("test") == 0:
        message = "the split leaves no test targets: there is nothing to measure"
        listen(Event("evaluate", "warning", {"message": message}))
        return
    result = run_workers(
        "evaluate", _evaluate_on_worker, config.train, {"config": config, "workspace": workspace}, listen
    )
    content = json.dumps(result, indent=1).encode()
    artifact.write_file(METRICS_FILE, content, fingerprint(inputs), rows=result["queries"])
    artifact.commit(inputs, {"queries": result["queries"], "overall": result["overall"]})
    monitor = config.train.monitor
    listen(Event("evaluate", "finished", {"queries": result["queries"], monitor: result["overall"][monitor]}))


def _evaluate_on_worker(
    *, config: Config, workspace: Workspace, communicator: Communicator, device: torch.device, listen: Listener
) -> dict[str, Any]:
    def progress(done: int, total: int) -> None:
        if communicator.rank == 0:
            listen(Event("evaluate", "progress", {"done": done, "total": total, "unit": "users"}))

    return evaluate(
        load_trained(config, workspace, communicator, device),
        SequenceStore(workspace),
        load_popularity(workspace),
        config.evaluate,
        communicator,
        config.similarity,
        progress,
    )
