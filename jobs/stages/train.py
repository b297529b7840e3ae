"""The train stage: data-parallel training on Ray Train workers, each with its rows of the item table."""

from __future__ import annotations

from typing import Any

import torch

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Listener, Summary
from alphafuse.storage.workspace import Workspace
from alphafuse.training.loop import Trainer
from jobs.execution.worker_group import run_workers
from jobs.execution.worker_metrics import serving

# What changes where and how fast the training runs, but not what is trained.
RESOURCE_KEYS = {
    "workers",
    "min_workers",
    "max_restarts",
    "cpus_per_worker",
    "gpus_per_worker",
    "pool",
    "log_steps",
    "checkpoint_steps",
}


def training_inputs(config: Config, workspace: Workspace) -> dict[str, Any]:
    """What the trained model is made from."""
    inputs: dict[str, Any] = {
        "seed": config.seed,
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=RESOURCE_KEYS),
        "validation": config.evaluate.model_dump(mode="json", include={"cutoffs", "similarity", "exclude_seen"}),
        "sequences": workspace.artifact("sequences").require().fingerprint,
    }
    for name in config.model.encoder.reads:
        inputs[name] = workspace.artifact(name).require().fingerprint
    if "embeddings" in config.model.encoder.reads:
        inputs["scale"] = config.decompose.scale
    return inputs


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Train, or continue training, and write the best weights as the artefact `model`.

    Returns:
        What a person is told of it; None where the model was there.
    """
    summary, inputs = None, training_inputs(config, workspace)
    if not workspace.artifact("model").is_committed(inputs):
        arguments = {"config": config, "workspace": workspace, "inputs": inputs}
        details = run_workers("train", train_on_worker, config.train, arguments, listen, serving(config), resumes=True)
        facts = {"epochs": len(details["history"]), "steps": details["steps"], "stopped": details["stopped"]}
        summary = {**facts, f"best {config.train.monitor}": details["best"]["value"]}
    (workspace.folder / "checkpoints").delete()
    return summary


def train_on_worker(
    *,
    config: Config,
    workspace: Workspace,
    inputs: dict[str, Any],
    communicator: Communicator,
    device: torch.device,
    listen: Listener,
) -> dict[str, Any]:
    """What one rank of the training runs; continues from the latest checkpoint of the workspace."""
    return Trainer(config, workspace, inputs, communicator, device, listen).run()
