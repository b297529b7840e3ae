"""The simulation counts the same as real runs: steps of ranks, files of checkpoints, requests to a bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.servers.object_store import ObjectStore
from support.workspaces.tiny_workspace import HIDDEN_DIM, NULL_DIM, NUM_ITEMS, tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Event, StepTaken
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import iterate_rows, to_column
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.table_rows import write_table_rows
from alphafuse.training.loop import Trainer
from benchmarks.simulation.cost_model import Machine, Work, commits, reads_groups, writes
from benchmarks.simulation.made_up_log import MadeUpLog, popular_items
from benchmarks.simulation.played_ranks import play
from benchmarks.simulation.stages import checkpoint_files
from benchmarks.simulation.training_steps import Model, play_training

COUNTED = ("samples", "rows_distinct", "rows_served", "rows_touched", "bytes_sent")


def _train(config: Config) -> list[list[float]]:
    """Train on this rank; returns what its steps counted."""
    events: list[Event] = []
    Trainer(config, Workspace(config.workspace), {}, Communicator(), torch.device("cpu"), events.append).run()
    return [[getattr(event, name) for name in COUNTED] for event in events if isinstance(event, StepTaken)]


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"accumulation": 2, "positions": "last"}, {"loss": {"negatives": "uniform"}}])
def test_played_steps_are_those_of_a_training(tmp_path: Path, world_size: int, settings: dict[str, Any]) -> None:
    workspace = tiny_workspace(tmp_path)
    config = tiny_config(tmp_path, max_epochs=1, **{"loss": {"num_negatives": 6}, **settings})
    trained = run_ranks(world_size, _train, config)
    model = Model(NUM_ITEMS, HIDDEN_DIM, NULL_DIM, config.model.history_length)
    played = play_training(config.train, model, SequenceStore(workspace), config.seed, world_size, len(trained[0]))
    assert len(played.steps) == len(trained[0]) > 1
    for number, ranks in enumerate(played.steps):
        counted = [[rank.samples, rank.distinct, rank.served, rank.touched, rank.sent] for rank in ranks]
        assert counted == [trained[rank][number] for rank in range(world_size)]
    assert sum(rank.sent for rank in played.steps[0]) > 0


def test_what_is_received_was_sent() -> None:
    config = tiny_config(Path("unused"), loss={"num_negatives": 6})
    played = play_training(config.train, Model(1000, 8, 3, 4), MadeUpLog(1000, 200, 8), 0, 4, 2)
    for ranks in played.steps:
        sent = sum(rank.sent - rank.sent_by_hosts for rank in ranks)
        assert sent == sum(rank.received for rank in ranks) > 0


def test_operations_of_a_step_are_counted() -> None:
    config = tiny_config(Path("unused"), batch_size=12, loss={"num_negatives": 50})
    played = play_training(config.train, Model(1000, 8, 3, 4), MadeUpLog(1000, 200, 8), 0, 1, 1)
    targets, negatives, dim, positions = played.steps[0][0].targets, 50, 8, 12 * 4
    scores = 3 * 2 * targets * negatives * dim
    dense = 3 * 2 * positions * (3 + 1 + 2) * dim * dim  # projections of queries, keys and values; output; feed-forward
    attention = (2 + 5) * 2 * 12 * 4 * 4 * dim  # two products forward, five in the backward pass, which repeats one
    assert played.dense.operations == pytest.approx(scores + dense + attention, rel=0.02)
    assert played.dense.scores >= 11 * 4 * targets * negatives  # times that the scores are written or read


def test_a_failing_rank_fails_the_play() -> None:
    def fail(rank: int) -> None:
        if rank == 1:
            raise ValueError("no batch")
        Communicator().barrier()

    with pytest.raises(ValueError, match="no batch"):
        play(3, fail)


def test_popularity_falls_as_the_order_of_the_items() -> None:
    num_items = 1000
    items = popular_items(np.random.default_rng(0), 200_000, num_items)
    shares = np.sort(np.bincount(items, minlength=num_items))[::-1] / len(items)
    expected = np.log(2) / np.log(num_items)
    assert shares[0] == pytest.approx(expected, rel=0.15)
    halves = np.bincount(items * 10 // num_items, minlength=10)
    assert halves.min() > 0  # popular items lie everywhere


@pytest.mark.parametrize("ranks", [1, 3])
def test_files_of_a_checkpoint(tmp_path: Path, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphafuse.training.checkpoints.table_rows.FILE_BYTES", 4000)
    artifact, items, dim = Workspace(str(tmp_path)).artifact("model"), 1000, 3
    for rank in range(ranks):
        start, stop = rank * items // ranks, (rank + 1) * items // ranks
        tensors = {name: torch.rand(stop - start, dim) for name in ("rows", "first_moment", "second_moment")}
        write_table_rows(artifact, "wanted", start, tensors)
    written = [record.bytes for record in artifact.records().values()]
    simulated = [size for rank in range(ranks) for size in checkpoint_files(items, dim, rank, ranks)]
    assert sorted(written) == sorted(simulated)


def test_requests_to_a_bucket(bucket: ObjectStore) -> None:
    artifact = Workspace("s3://bucket/run").artifact("features")

    def requests(function: Callable[[], Any]) -> int:
        bucket.requests.clear()
        function()
        return len(bucket.requests)

    wanted = fingerprint({})
    for size in (1000, 5 * 2**20, 10 * 2**20 + 1, 40_000_000):
        written = requests(lambda size=size: artifact.write_file("file", pa.py_buffer(bytes(size)), wanted))  # type: ignore[misc]
        assert written == writes(1, size).requests
    rows = 5 * 8192  # with another column between the groups, as artefacts have
    table = pa.table({"features": to_column(np.ones((rows, 64), np.float32)), "item_index": np.arange(rows)})
    for number in range(4):
        artifact.write_table(f"part-{number}.parquet", table, wanted, first_row=number * len(table))
    assert requests(lambda: artifact.commit({})) == commits(5).requests

    def read_middle() -> None:
        for _ in iterate_rows(artifact, "features", len(table) + 8192, len(table) + 3 * 8192):
            pass

    sequences = Workspace("s3://bucket/run").artifact("sequences")
    log = MadeUpLog(10**6, 2 * 8192, 20).read([0, 1])
    items, ends = pa.ListArray.from_arrays(pa.array(log.starts, pa.int32()), log.items), log.train_end.astype(np.int32)
    columns = {"user_id": log.user_ids, "items": items, "train_end": ends, "validation_end": ends, "recent_start": ends}
    sequences.write_table("part-0.parquet", pa.table(columns), wanted)
    sequences.commit({})
    store = SequenceStore(Workspace("s3://bucket/run"))
    assert requests(lambda: list(store.groups())) == reads_groups(1, 1, 0).requests

    looks = 2 + 2  # the manifest; the file is opened to look at its row groups, and again to read them
    assert requests(read_middle) == looks + reads_groups(1, 2, 0).requests


def test_seconds_of_work() -> None:
    machine = Machine(products=10, card_memory=20, network=4, message=0.5, request=0.25, connection=8)
    seconds = machine.seconds(Work(products=30, card_bytes=10, sent=8, messages=3, waits=2, stored=16, cpu=7) * 2)
    assert seconds == {"card": 7.0, "network": 7.0, "host network": 0.0, "storage": 5.0, "processor": 14.0}
