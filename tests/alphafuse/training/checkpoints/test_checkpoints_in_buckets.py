"""Checkpoints in a bucket: equal on any number of ranks, read once, in a bounded number of requests."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.servers.object_store import ObjectStore, reaching
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.storage.filesystem.buckets import open_s3
from alphafuse.storage.workspace import Workspace
from alphafuse.training.loop import Trainer

pytestmark = pytest.mark.distributed

CHECKPOINT = "run/checkpoints/step-000000002"


@pytest.fixture
def config(tmp_path: Path, bucket: ObjectStore) -> Config:
    """A run in the bucket with everything that training reads."""
    tiny_workspace(tmp_path)
    filesystem, path = open_s3("s3://bucket/run")
    pafs.copy_files(str(tmp_path), path, pafs.LocalFileSystem(), filesystem)
    return tiny_config(tmp_path, batch_size=5).model_copy(update={"workspace": "s3://bucket/run"})


def _trainer(config: Config) -> Trainer:
    return Trainer(config, Workspace(config.workspace), {}, Communicator(), torch.device("cpu"), lambda event: None)


def _state(trainer: Trainer) -> dict[str, torch.Tensor]:
    table = trainer.table
    return {name: getattr(table, name).clone() for name in ("trainable", "first_moment", "second_moment")}


def _saved(address: str, config: Config) -> dict[str, torch.Tensor]:
    """State of the checkpoint of the second step, which is written while two more steps are taken."""
    with reaching(address):
        trainer = _trainer(config)
        _take_two_steps(trainer)
        trainer._save()
        state = _state(trainer)
        _take_two_steps(trainer)
        trainer._checkpoints.wait()
    return state


def _take_two_steps(trainer: Trainer) -> None:
    for plan in itertools.islice(trainer.plans(), 2):
        trainer.training_step(plan)
        trainer.state.step += 1
        trainer.state.step_in_epoch += 1


def _resumed(address: str, config: Config) -> dict[str, torch.Tensor]:
    with reaching(address):
        trainer = _trainer(config)
        trainer._resume()
        assert trainer.state.step == 2
    return _state(trainer)


def test_a_checkpoint_is_written_in_few_requests_and_read_once(bucket: ObjectStore, config: Config) -> None:
    bucket.seconds = 0.005
    bucket.fail("PutObject", "lost answer", key="table-000000000015.safetensors")
    saved = _whole(run_ranks(2, _saved, bucket.address, config))
    # Two files of rows and one of dense weights, each with its record; the manifest and its copy.
    assert bucket.counts(CHECKPOINT)["PutObject"] <= 2 * 3 + 2 + 1
    assert bucket.counts()["CopyObject"] == 0
    files = json.loads(bucket.objects[f"{CHECKPOINT}/manifest.json"])["files"]
    assert len(files) == 3
    for ranks, reads in ((2, 1), (3, 2)):  # a file is read by the ranks that own some of its rows
        bucket.requests.clear()
        assert all(torch.equal(saved[name], value) for name, value in _whole(_run(ranks, bucket, config)).items())
        for file in files:
            read = Counter(GetObject=reads if file["rows"] else 1)
            assert bucket.counts(f"{CHECKPOINT}/{file['name']}") & Counter(GetObject=9) <= read
            assert bucket.downloaded(f"{CHECKPOINT}/{file['name']}") <= file["bytes"] * read["GetObject"]


def _run(ranks: int, bucket: ObjectStore, config: Config) -> list[dict[str, torch.Tensor]]:
    return run_ranks(ranks, _resumed, bucket.address, config)


def _whole(states: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}
