"""The stage `evaluate`: the trained model ranks the full catalog for every test target."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from alphafuse.config import Config, EvaluateConfig
from alphafuse.data.popularity import load_held_out, load_popularity, load_recent_popularity
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.step_timer import StepTimer
from alphafuse.evaluation.evaluator import Similarity, evaluate
from alphafuse.evaluation.ranks import writing_ranks
from alphafuse.evaluation.scorer import Scorer
from alphafuse.events import RANKING_SPANS, Listener, Metrics, Progress, StageWarning, Summary
from alphafuse.stages import EVALUATE
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.execution.reporting.worker_metrics import serving
from jobs.execution.worker_group import run_workers

METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Measured:
    """The findings of the ranks.

    Attributes:
        metrics: the content of `metrics.json`.
        seconds: where the time went, by the names of `RANKING_SPANS`: means over the ranks.
    """

    metrics: dict[str, Any]
    seconds: dict[str, float]


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Write the artefact `evaluation` with `metrics.json` (see `alphafuse.evaluation.evaluator.evaluate`) and
    `ranks.parquet`; returns its summary, None where it was there already or the split has no test targets."""
    artifact, inputs = workspace.artifact("evaluation"), EVALUATE.inputs(config, workspace)
    if artifact.is_committed(inputs):
        return None
    if workspace.artifact("sequences").require().details.get("targets", {}).get("test") == 0:
        message = "the split leaves no test targets: there is nothing to measure"
        listen(StageWarning(EVALUATE.name, message))
        return None
    arguments = {"config": config, "workspace": workspace, "wanted": fingerprint(inputs)}
    measured = run_workers(EVALUATE, _evaluate_on_worker, config.train.resources, arguments, listen, serving(config))
    return finish(artifact, inputs, measured, config.train.monitor, listen)


def finish(
    artifact: Artifact, inputs: Mapping[str, Any], measured: Measured, monitor: str, listen: Listener
) -> Summary:
    """Complete an evaluation whose ranks are written and whose metrics are known; returns its summary."""
    result = measured.metrics
    content = json.dumps(result, indent=1).encode()
    artifact.write_file(METRICS_FILE, content, fingerprint(inputs))
    artifact.commit(inputs, {"queries": result["queries"], "overall": result["overall"]})
    listen(Metrics(EVALUATE.name, numbers={f"{span}_seconds": taken for span, taken in measured.seconds.items()}))
    listen(Metrics(EVALUATE.name, result["split"], result["overall"]))
    seen = "left out" if result["exclude_seen"] else "left in"
    seconds = ", ".join(f"{span} {taken:.1f}" for span, taken in measured.seconds.items())
    return {
        "queries": result["queries"],
        "seen_items": seen,
        monitor: result["overall"][monitor],
        f"{monitor} of popularity": result["baselines"]["popularity"]["overall"][monitor],
        "seconds": seconds,
    }


def measure(
    load: Callable[[Communicator], Scorer],
    similarity: Similarity,
    config: EvaluateConfig,
    workspace: Workspace,
    wanted: str,
    communicator: Communicator,
    device: torch.device,
    listen: Listener,
) -> Measured:
    """Rank the test targets of a workspace with a model, and write their ranks. A collective.

    Args:
        load: makes the model, which must use the communicator that it gets.
    """
    timer = StepTimer(device)
    communicator = communicator.timed(timer)
    timer.begin_step()
    with timer.span("load"):
        model = load(communicator)
    timer.end_step()

    def progress(done: int, total: int) -> None:
        if communicator.rank == 0:
            listen(Progress(EVALUATE.name, done, total, "users"))

    artifact = workspace.artifact("evaluation")
    recording = writing_ranks(artifact, wanted) if communicator.rank == 0 else nullcontext(lambda answers: None)
    with recording as record:
        metrics = evaluate(
            model,
            SequenceStore(workspace),
            load_popularity(workspace),
            load_recent_popularity(workspace),
            load_held_out(workspace),
            config,
            communicator,
            similarity,
            progress,
            record,
        )
    totals = communicator.gather_objects(dict(timer.totals))
    seconds = {span: sum(of.get(f"{span}_seconds", 0.0) for of in totals) / len(totals) for span in RANKING_SPANS}
    return Measured(metrics, seconds)


def _evaluate_on_worker(
    *,
    config: Config,
    workspace: Workspace,
    wanted: str,
    communicator: Communicator,
    device: torch.device,
    listen: Listener,
) -> Measured:
    def load(timed: Communicator) -> Scorer:
        return load_trained(config, workspace, timed, device)

    return measure(load, config.similarity, config.evaluate, workspace, wanted, communicator, device, listen)
