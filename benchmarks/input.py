"""Speed of the input pipeline, beside the trainer that consumes its batches, with a log larger than memory.

    python -m benchmarks.input --users 2000000 --json benchmarks/results/input.json

A made-up log is written as `prepare` writes it. Ranks, simulated one after the other, go through their parts of an
epoch without training: with a buffer for the whole log, for a tenth, and for a hundredth of it. One rank reads all of
the log, each of eight an eighth; the rank that reads most and the slowest one are shown. Beside that stands what a rank
consumes in training, with the training step of `benchmarks.step_time` at a million items and 1,024 shared negatives.
"""

from __future__ import annotations

import itertools
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch.distributed as dist

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.batches import BatchOrder
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from benchmarks.common.processes import memory_mib, peak_memory_mib, reset_peak_memory, run_ranks
from benchmarks.common.step_cases import BATCH, HISTORY, LOSSES, OurStep, draw_items
from benchmarks.common.tables import arguments, publish

NUM_ITEMS = 1_000_000
SHARD_USERS = 200_000
MEAN_ITEMS = 12
TRAINER_RANKS = 2
TRAINER_STEPS = 30


def write_log(folder: str, num_users: int) -> None:
    """The artefact `sequences` of users with 5 to 19 items, all of which train."""
    artifact, inputs = Workspace(folder).artifact("sequences"), {"benchmark": "input"}
    generator = np.random.default_rng(0)
    for number, first in enumerate(range(0, num_users, SHARD_USERS)):
        lengths = generator.integers(5, 2 * MEAN_ITEMS - 4, min(SHARD_USERS, num_users - first))
        items = pa.array(generator.integers(0, NUM_ITEMS, lengths.sum()))
        ends = pa.array(lengths, pa.int32())
        table = pa.table(
            {
                "user_id": pa.array([f"u{user}" for user in range(first, first + len(lengths))]),
                "items": pa.LargeListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]), items).cast(
                    pa.list_(pa.int64())
                ),
                "train_end": ends,
                "validation_end": ends,
            }
        )
        artifact.write_table(f"part-{number:05d}.parquet", table, fingerprint(inputs), first_row=first)
    artifact.commit(inputs)


def go_through(folder: str, positions: str, buffer_users: int, world_size: int) -> list[dict[str, float]]:
    """Let each of so many ranks, one after the other, go through its part of an epoch without training."""
    return [_go_through(folder, positions, buffer_users, rank, world_size) for rank in range(world_size)]


def _go_through(folder: str, positions: str, buffer_users: int, rank: int, world_size: int) -> dict[str, float]:
    reset_peak_memory()
    idle, begin, read = memory_mib(), time.process_time(), bytes_read()
    windowing = Windowing.of(TrainConfig.model_validate({"positions": positions}), HISTORY)
    samples = SampleStream(SequenceStore(Workspace(folder)), windowing, buffer_users, seed=1)
    opened, opened_bytes = time.process_time() - begin, bytes_read() - read
    order = BatchOrder(samples, BATCH * world_size, 1)
    steps, own, longest = 0, 0, 0.0
    begin, last, read = time.process_time(), time.perf_counter(), bytes_read()
    for (batch,) in order.epoch(0, 0, rank, world_size):
        own += len(batch.histories)
        steps += 1
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    return {
        "steps": steps,
        "samples": own,
        "seconds": time.process_time() - begin,
        "bytes": bytes_read() - read,
        "opening s": opened,
        "opening MiB": opened_bytes / 2**20,
        "longest wait ms": 1e3 * longest,
        "MiB": peak_memory_mib() - idle,
    }


def bytes_read() -> int:
    """Bytes that this process has read from files so far (Linux)."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


def consume(positions: str) -> float:
    """CPU seconds of a training step of this rank's batch."""
    step = OurStep(LOSSES["sampled softmax, 1,024 shared"], NUM_ITEMS, positions)
    batches = draw_items(NUM_ITEMS, dist.get_rank(), TRAINER_STEPS + 5)
    for number, batch in enumerate(batches[:5]):
        step(batch, number)
    dist.barrier()
    begin = time.process_time()
    for number, batch in enumerate(batches[5:], 5):
        step(batch, number)
    dist.barrier()
    return (time.process_time() - begin) / TRAINER_STEPS


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    modes = ("all", "last")
    consumed = {mode: BATCH / max(run_ranks(TRAINER_RANKS, consume, mode)) for mode in modes}
    with tempfile.TemporaryDirectory() as folder:
        write_log(folder, options.users)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
        for mode, share, world_size in itertools.product(modes, (1, 10, 100), options.ranks):
            (ranks,) = run_ranks(1, go_through, folder, mode, options.users // share, world_size)
            assert len({rank["steps"] for rank in ranks}) == 1  # every rank takes as many steps
            rate = min(rank["samples"] / rank["seconds"] for rank in ranks)
            most = max(rank["bytes"] for rank in ranks)
            rows.append(
                {
                    "positions": mode,
                    "users in memory": options.users // share,
                    "ranks": world_size,
                    "MiB read": most / 2**20,
                    "times the share": most / (size / world_size),
                    "samples/CPU-s": rate,
                    "trainer's samples/CPU-s": consumed[mode],
                    "times the trainer": rate / consumed[mode],
                    "opening CPU-s": max(rank["opening s"] for rank in ranks),
                    "opening MiB": max(rank["opening MiB"] for rank in ranks),
                    "longest wait ms": max(rank["longest wait ms"] for rank in ranks),
                    "MiB/rank": max(rank["MiB"] for rank in ranks),
                }
            )
    settings = {
        "users": options.users, "log MiB": round(size / 2**20), "trainer's ranks": TRAINER_RANKS,
        "batch/rank": BATCH, "history": HISTORY,
    }  # fmt: skip
    publish("Input pipeline", settings, rows, options.json)


if __name__ == "__main__":
    main()
