"""Time that training loses to its checkpoints, on a disk and in a bucket whose every request takes a while.

    python -m benchmarks.checkpoints --json benchmarks/results/checkpoints.json

Ranks take steps and write a checkpoint every few of them. "waited for": training waits until each is complete, as it
did before they were written in the background. The share is the time that the slowest rank stood still in all time; the
last checkpoint, which the end of a training waits for, counts. The bucket is moto's S3 server in a process beside the
ranks, on the same cores.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch.distributed as dist

from alphafuse.distributed.communicator import Communicator
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import Checkpoints
from benchmarks.common.processes import run_ranks
from benchmarks.common.step_cases import LOSSES, NULL_DIM, OurStep, draw_items
from benchmarks.common.tables import arguments, publish
from tests.support.servers.object_store import leading_to, object_store

LOSS = "sampled softmax, 1,024 shared"
WARM_UP = 3


def train_on_rank(uri: str, num_items: int, every: int, checkpoints: int, wait: bool) -> tuple[float, float]:
    """Seconds of all steps and checkpoints, and those that this rank stood still."""
    communicator = Communicator()
    step = OurStep(LOSSES[LOSS], num_items)
    written = Checkpoints(Workspace(uri), {"items": num_items}, communicator)
    batches = draw_items(num_items, communicator.rank, WARM_UP + every * checkpoints)
    for number, batch in enumerate(batches[:WARM_UP]):
        step(batch, number)
    dist.barrier()
    started, stood_still = time.perf_counter(), 0.0
    for number, batch in enumerate(batches[WARM_UP:], 1):
        step(batch, WARM_UP + number)
        begin = time.perf_counter()
        if number % every == 0:
            written.save(number, step.table, step.engine, None, {}, [])
        if wait or number == every * checkpoints:
            written.wait()
        stood_still += time.perf_counter() - begin
    dist.barrier()
    return time.perf_counter() - started, stood_still


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=int, default=10**5)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds that a request to the bucket waits")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as disk, object_store() as store, leading_to(store):
        for place, uri in (("disk", disk), ("bucket", "s3://bucket/run")):
            for wait in (True, False):
                store.reset()
                store.seconds = options.latency
                each = (f"{uri}/{wait}", options.items, options.every, options.checkpoints, wait)
                results = run_ranks(options.ranks, train_on_rank, *each)
                seconds, stood_still = (max(values) for values in zip(*results, strict=True))
                rows.append(
                    {
                        "place": place,
                        "checkpoints": "waited for" if wait else "in the background",
                        "MB each": 12e-6 * NULL_DIM * options.items,
                        "seconds": seconds,
                        "stood still": stood_still,
                        "share %": 100 * stood_still / seconds,
                        "requests each": len(store.requests) / options.checkpoints,
                    }
                )
    settings = {name: getattr(options, name) for name in ("items", "ranks", "every", "checkpoints", "latency")}
    publish("Checkpoints", settings, rows, options.json)


if __name__ == "__main__":
    main()
