"""Checkpoints in a bucket: equal on any number of ranks, read once, in a bounded number of requests."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
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

CHECKPOINT, NEXT = "run/checkpoints/step-000000002", "run/checkpoints/step-000000004"


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


@pytest.mark.parametrize(
    ("victim", "uploading", "written"),
    [
        (1, "table-000000000015.safetensors", {"table-000000000000.safetensors", "dense.safetensors"}),
        (0, "dense.safetensors", {"table-000000000000.safetensors", "table-000000000015.safetensors"}),
    ],
)
def test_a_rank_killed_during_an_upload_costs_the_steps_since_the_checkpoint_before(
    bucket: ObjectStore, config: Config, tmp_path: Path, victim: int, uploading: str, written: set[str]
) -> None:
    """SIGKILL while the file `uploading` is on its way and the others are there. Three ranks go on, whose files have
    other names."""

    def kill() -> None:
        end = time.monotonic() + 60
        while not {f"{NEXT}/{name}" for name in written} <= bucket.objects.keys() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(int((tmp_path / f"rank-{victim}").read_text()), signal.SIGKILL)

    bucket.fail("PutObject", kill, key=f"{NEXT}/{uploading}")
    with pytest.raises(RuntimeError, match=r"rank \d failed"):
        run_ranks(2, _saved_twice, bucket.address, config, tmp_path)
    left = {key.removeprefix(f"{NEXT}/") for key in bucket.objects if key.startswith(NEXT)}
    assert written <= left
    assert not {uploading, "manifest.json", "manifest.copy.json"} & left
    before = {key: value for key, value in bucket.objects.items() if key.startswith(CHECKPOINT)}
    assert f"{CHECKPOINT}/manifest.json" in before

    bucket.requests.clear()
    resumed, continued = zip(*run_ranks(3, _resumed_and_saved, bucket.address, config), strict=True)

    got = {request.key for request in bucket.requests if request.kind == "GetObject"}
    read = {key for key in got if key.endswith(".safetensors")}  # and not records, which a commit reads
    assert any(key.startswith(CHECKPOINT) for key in read)
    assert not any(key.startswith(NEXT) for key in read)
    undisturbed, after = zip(*run_ranks(2, _undisturbed, bucket.address, config), strict=True)
    _assert_close(resumed, undisturbed)
    _assert_close(continued, after)
    objects = {key.removeprefix(f"{NEXT}/") for key in bucket.objects if key.startswith(NEXT)}
    files = {file["name"] for file in json.loads(bucket.objects[f"{NEXT}/manifest.json"])["files"]}
    assert files == {*(f"table-{first:012d}.safetensors" for first in (0, 10, 20)), "dense.safetensors"}
    assert {name for name in objects if name.endswith(".safetensors")} == files
    assert not any(key.startswith(CHECKPOINT) for key in bucket.objects)


def _saved_twice(address: str, config: Config, folder: Path) -> None:
    with reaching(address):
        trainer = _trainer(config)
        (folder / f"rank-{Communicator().rank}").write_text(str(os.getpid()))
        for _ in range(2):
            _take_two_steps(trainer)
            trainer._save()
        trainer._checkpoints.wait()


def _resumed_and_saved(address: str, config: Config) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    with reaching(address):
        trainer = _trainer(config)
        trainer._resume()
        assert trainer.state.step == 2
        state = _state(trainer)
        _take_two_steps(trainer)
        trainer._save()
        trainer._checkpoints.wait()
    return state, _state(trainer)


def _undisturbed(address: str, config: Config) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    with reaching(address):
        trainer = _trainer(config)
        _take_two_steps(trainer)
        state = _state(trainer)
        _take_two_steps(trainer)
    return state, _state(trainer)


def _assert_close(found: Sequence[dict[str, torch.Tensor]], expected: Sequence[dict[str, torch.Tensor]]) -> None:
    """Check the states of some ranks against those of another number of ranks."""
    whole = _whole(list(expected))
    for name, value in _whole(list(found)).items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-5)


def _run(ranks: int, bucket: ObjectStore, config: Config) -> list[dict[str, torch.Tensor]]:
    return run_ranks(ranks, _resumed, bucket.address, config)


def _whole(states: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}
