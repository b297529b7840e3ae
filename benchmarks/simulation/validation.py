"""Sets what is played beside what really happens: a training of some ranks on this machine, and its files.

The ranks are processes that exchange rows through gloo; the play gets the same batches. Rates of this machine's cores
and of its exchange are measured in the same processes, so that the time of a step can be compared, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.samples import PADDING
from alphafuse.distributed.communicator import Communicator
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import Checkpoints
from benchmarks.common.processes import run_ranks
from benchmarks.common.step_cases import BATCH, HIDDEN_DIM, HISTORY, LOSSES, NULL_DIM, OurStep, draw_items
from benchmarks.simulation.cost_model import Work, commits, writes
from benchmarks.simulation.stages import checkpoint_files
from benchmarks.simulation.training_steps import Model, PlayedTraining, play_steps
from tests.support.servers.object_store import Request, leading_to, object_store

LOSS = "sampled softmax, 1,024 shared"
STEPS, WARM_UP = 12, 3
COUNTS = ("rows_distinct", "rows_served", "rows_touched", "bytes_sent")


def compare() -> list[dict[str, Any]]:
    """Compare catalogs of two sizes on one rank and on two; checkpoints of the smaller one go to a bucket."""
    rows = []
    with object_store() as store, tempfile.TemporaryDirectory() as disk:
        for items, place in ((10**5, "s3://bucket/run"), (10**6, disk)):
            for world_size in (1, 2):
                with leading_to(store):
                    measured = run_ranks(world_size, train_on_rank, items, f"{place}/{world_size}")
                    requests = _checkpoint_requests(store.requests)
                each = {"items": items, "ranks": world_size}
                rows += [{**each, **row} for row in _rows(items, measured, requests)]
    return rows


def _checkpoint_requests(requests: Sequence[Request]) -> int:
    """Number of requests from the first upload of a checkpoint to its second manifest; 0 where there are none."""
    uploads = [
        number for number, request in enumerate(requests) if request.kind in ("PutObject", "CreateMultipartUpload")
    ]
    return uploads[-1] + 1 - uploads[0] if uploads else 0


def train_on_rank(items: int, uri: str) -> dict[str, Any]:
    """Take steps, and write a checkpoint; returns counts of each step, its seconds, and rates of this process."""
    communicator = Communicator()
    step = OurStep(LOSSES[LOSS], items, "all", communicator)
    counted = []
    for number, batch in enumerate(draw_items(items, communicator.rank, WARM_UP + STEPS)):
        dist.barrier()
        communicator.timer.begin_step()
        step(batch, number)
        counted.append(communicator.timer.end_step())
    checkpoints = Checkpoints(Workspace(uri), {}, communicator)
    checkpoints.save(1, step.table, step.engine, None, {}, [])
    checkpoints.wait()
    files = [file.bytes for file in checkpoints.at(1).require().files if file.rows]
    rates = _rates(communicator)
    return {"steps": counted, "table": step.table.features.untyped_storage().nbytes(), "files": files, "rates": rates}


def play_measured(items: int, world_size: int) -> PlayedTraining:
    """The play of `train_on_rank`."""
    batches = [
        [[_batch(step.histories, step.targets, rank)] for step in draw_items(items, rank, WARM_UP + STEPS)]
        for rank in range(world_size)
    ]
    train = TrainConfig.model_validate({"batch_size": BATCH, "loss": LOSSES[LOSS]})
    return play_steps(train, Model(items, HIDDEN_DIM, NULL_DIM, HISTORY), batches, seed=0)


def _batch(histories: np.ndarray, last: np.ndarray, rank: int) -> Batch:
    """The batch that `OurStep` makes of the items of a step."""
    targets = np.full_like(histories, PADDING)
    targets[:, :-1], targets[:, -1] = histories[:, 1:], last
    return Batch(histories, targets, rank * BATCH)


def _rows(items: int, measured: list[dict[str, Any]], requests: int) -> list[dict[str, Any]]:
    ranks, played = len(measured), play_measured(items, len(measured))
    names = {"rows_distinct": "distinct", "rows_served": "served", "rows_touched": "touched", "bytes_sent": "sent"}
    pairs, others = list[tuple[str, float, float]](), 0
    for name in COUNTS:
        ours = [getattr(rank, names[name]) for step in played.steps for rank in step]
        theirs = [rank["steps"][number].get(name, 0) for number in range(len(played.steps)) for rank in measured]
        pairs.append((f"{name} of a step, mean", float(np.mean(ours)), float(np.mean(theirs))))
        others += int(np.count_nonzero(np.subtract(ours, theirs)))
    pairs.append(("counts of single steps and ranks that differ", 0, others))
    pairs.append(("bytes of the table, first rank", played.table_bytes[0], measured[0]["table"]))
    files = [size for rank in range(ranks) for size in checkpoint_files(items, NULL_DIM, rank, ranks)]
    pairs.append(("bytes of a checkpoint's rows, all ranks", sum(files), sum(measured[0]["files"])))
    saved = sum((writes(1, size) for size in files), writes(1, 0) + commits(len(files) + 1))
    if requests:
        pairs.append(("requests of a checkpoint", saved.requests, requests))
    pairs.append(("ms of a step", 1e3 * _seconds(played, measured[0]["rates"]), 1e3 * _median_seconds(measured)))
    return [
        {"what": what, "simulated": ours, "measured": theirs, "simulated / measured": ours / theirs if theirs else None}
        for what, ours, theirs in pairs
    ]


def _median_seconds(measured: list[dict[str, Any]]) -> float:
    """Time of a step of the slowest rank."""
    seconds = zip(*([step["seconds"] for step in rank["steps"][WARM_UP:]] for rank in measured), strict=True)
    return median(max(ranks) for ranks in seconds)


def _seconds(played: PlayedTraining, rates: dict[str, float]) -> float:
    """Time of a step: here the plan is made before the step, and not beside it."""
    dense, ranks = played.dense, [rank for step in played.steps for rank in step]
    work = Work(dense.operations, dense.bytes, sent=float(np.mean([rank.sent for rank in ranks])))
    planning = median(rank.planning for rank in ranks)
    return (
        planning + work.products / rates["products"] + work.card_bytes / rates["memory"] + work.sent / rates["exchange"]
    )


def _rates(communicator: Communicator) -> dict[str, float]:
    """Operations of products, bytes of copies and bytes of exchanges that this process does in a second."""
    states, negatives = torch.rand(2560, HIDDEN_DIM), torch.rand(HIDDEN_DIM, 1024)
    large, rows = torch.rand(2560, 1024), torch.rand(2 * 1024, HIDDEN_DIM)
    half = [len(rows) // communicator.world_size] * communicator.world_size
    sent = rows.nbytes * (communicator.world_size - 1) / communicator.world_size
    return {
        "products": 2 * states.shape[0] * negatives.numel() / _typical(lambda: states @ negatives),
        "memory": 2 * large.nbytes / _typical(large.exp),
        "exchange": sent / _typical(lambda: communicator.exchange(rows, half, half)) or 1.0,
    }


def _typical(function: Callable[[], Any]) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return median(seconds)
