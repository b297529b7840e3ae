"""Evaluates finished runs together, as one model whose scores are the sums of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.ranking.ensemble import Ensemble
from alphafuse.evaluation.scorer import Scorer
from alphafuse.events import Listener, Summary
from alphafuse.stages import EVALUATE
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.execution.reporting.worker_metrics import serving
from jobs.execution.worker_group import run_workers
from jobs.stages.evaluate import Measured, finish, measure


def ensemble_inputs(members: Sequence[Config]) -> dict[str, Any]:
    """Return what the evaluation is made from. Models count by their content, since a model that is trained again from
    equal inputs may have other weights.

    Raises:
        WorkspaceError: a member has no model.
    """
    models = [Workspace(member.workspace).artifact("model").require() for member in members]
    return {
        "models": [
            {"fingerprint": model.fingerprint, "files": {file.name: file.sha256 for file in model.files}}
            for model in models
        ],
        "similarities": [member.similarity for member in members],
        "evaluate": EVALUATE.settings(members[0])["evaluate"],
    }


def run(members: Sequence[Config], workspace: Workspace, listen: Listener) -> Summary | None:
    """Write the artefact `evaluation` of an ensemble; it is made again whenever one of its models was.

    The number of workers and the settings of the evaluation are those of the first member.

    Args:
        members: configurations of finished runs.
        workspace: borrows or holds `catalog`, `sequences` and `popularity`.

    Returns:
        Summary of the evaluation; None where it was there already.
    """
    artifact, config, inputs = workspace.artifact("evaluation"), members[0], ensemble_inputs(members)
    made = artifact.manifest()
    if made is not None and made.fingerprint == fingerprint(inputs):
        return None
    artifact = workspace.successor("evaluation")
    arguments = {"members": members, "workspace": workspace, "wanted": fingerprint(inputs)}
    measured = run_workers(EVALUATE, evaluate_on_worker, config.train.resources, arguments, listen, serving(config))
    measured.metrics["similarity"] = " + ".join(inputs["similarities"])
    return finish(artifact, inputs, measured, config.train.monitor, listen)


def evaluate_on_worker(
    *,
    members: Sequence[Config],
    workspace: Workspace,
    wanted: str,
    communicator: Communicator,
    device: torch.device,
    listen: Listener,
) -> Measured:
    """Evaluate on one rank, which holds its rows of all members."""

    def load(timed: Communicator) -> Scorer:
        models = [load_trained(member, Workspace(member.workspace), timed, device) for member in members]
        return Ensemble(models, [member.similarity for member in members])

    return measure(load, "dot", members[0].evaluate, workspace, wanted, communicator, device, listen)
