"""The stage `train`: data-parallel training on Ray Train workers, each with its rows of the item table."""

from __future__ import annotations

from typing import Any

import torch

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Listener, StageWarning, Summary
from alphafuse.stages import TRAIN
from alphafuse.storage.workspace import Workspace
from jobs.execution.host_memory import short_of_memory
from jobs.execution.reporting.worker_metrics import serving
from jobs.execution.worker_group import run_workers


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Train, or continue training, and write the best weights as the artefact `model`.

    Returns:
        Summary of the stage; None where the model was there already.
    """
    summary, inputs = None, TRAIN.inputs(config, workspace)
    if not workspace.artifact("model").is_committed(inputs):
        arguments = {"config": config, "workspace": workspace, "inputs": inputs}
        resources = config.train.resources
        if message := short_of_memory(config, workspace):
            listen(StageWarning(TRAIN.name, message))
        details = run_workers(TRAIN, train_on_worker, resources, arguments, listen, serving(config), resumes=True)
        facts = {"epochs": len(details["history"]), "steps": details["steps"], "stopped": details["stopped"]}
        carried = details.get("update") or {}
        facts |= {name: carried[name] for name in ("carried", "new", "removed") if name in carried}
        summary = {**facts, f"best {config.train.monitor}": details["best"]["value"]}
    workspace.checkpoints.delete()
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
    """Train on one rank; continues from the latest checkpoint of the workspace."""
    from alphafuse.training.loop import Trainer  # imports DeepSpeed, which takes seconds and only ranks need

    return Trainer(config, workspace, inputs, communicator, device, listen).run()
