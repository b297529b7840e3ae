"""The train stage on real Ray Train workers: the same model on 1 and 2 workers, and after a worker was killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_config, tiny_features, tiny_workspace

from alphafuse.config import parse_config
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import DataError, ResourceError, WorkspaceError
from alphafuse.events import (
    EpochMetrics,
    Event,
    Progress,
    TrainingProgress,
    WorkersRestarted,
)
from alphafuse.stages import TRAIN
from alphafuse.storage.matrices import read_rows
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.execution.worker_group import Ranks, run_workers
from jobs.stages import train

# Workers cannot import a test module: its functions travel with their code.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]


def _train(folder: Path, **settings: Any) -> tuple[Workspace, list[Event]]:
    workspace = tiny_workspace(folder)
    events: list[Event] = []
    train.run(tiny_config(folder, **settings), workspace, events.append)
    return workspace, events


def _vectors(workspace: Workspace) -> torch.Tensor:
    config = tiny_config(Path(workspace.folder.uri))
    return load_trained(config, workspace, Communicator()).item_vectors()


def test_two_workers_train_the_model_of_one(tmp_path: Path) -> None:
    one, events = _train(tmp_path / "one")
    two, _ = _train(tmp_path / "two", workers=2, checkpoint_steps=2)
    torch.testing.assert_close(_vectors(one), _vectors(two), rtol=0, atol=1e-5)
    history, other = (w.artifact("model").require().details["history"] for w in (one, two))
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert [e["loss"] for e in history] == pytest.approx([e["loss"] for e in other], abs=1e-5)
    assert history[1]["loss"] < history[0]["loss"]
    assert {TrainingProgress, EpochMetrics} <= {type(event) for event in events}

    before = tiny_features()
    assert read_rows(one.artifact("features"), "features", 0, NUM_ITEMS).tobytes() == before.tobytes()
    row_space = _vectors(one)[:, :5].numpy()
    assert np.array_equal(row_space, before[:, :5])
    assert not np.array_equal(_vectors(one)[:, 5:].numpy(), before[:, 5:])

    assert not (tmp_path / "one" / "checkpoints").exists()
    files = {file.name: file.sha256 for file in one.artifact("model").require().files}
    train.run(tiny_config(tmp_path / "one"), one, events.append)
    assert {file.name: file.sha256 for file in one.artifact("model").require().files} == files
    with pytest.raises(WorkspaceError, match=r"train\.learning_rate: 0\.01 → 0\.5"):
        train.run(tiny_config(tmp_path / "one", learning_rate=0.5), one, events.append)


def test_more_workers_than_the_cluster_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"asks for 50 workers with 1 CPUs and 0 GPUs each, but .* room for 4"):
        _train(tmp_path, workers=50)


def _always_dies(*, log: Path, **_: Any) -> None:
    with log.open("a") as file:
        file.write("called\n")
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_again_and_again_end_with_advice(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_restarts=0)
    with pytest.raises(ResourceError, match=r"died again and again, the last time with: .+ out of memory"):
        run_workers(TRAIN, _always_dies, config.train.resources, {"log": tmp_path / "log"}, lambda event: None)
    assert (tmp_path / "log").read_text() == "called\n"


def _fails_twice(*, log: Path, **_: Any) -> None:
    """Fail without a message, and after the restart with an error that a user can cure."""
    with log.open("a") as file:
        file.write("called\n")
    if log.read_text() == "called\n":
        raise MemoryError
    raise DataError("the cause")


def test_a_fault_starts_all_again_and_what_a_user_can_cure_comes_out_as_raised(tmp_path: Path) -> None:
    events: list[Event] = []
    config = tiny_config(tmp_path).train.resources
    with pytest.raises(DataError, match="the cause"):
        run_workers(TRAIN, _fails_twice, config, {"log": tmp_path / "log"}, events.append)
    assert (tmp_path / "log").read_text() == "called\n" * 2
    (restart,) = events
    assert isinstance(restart, WorkersRestarted)
    assert "a worker died (MemoryError)" in restart.message  # has no text: named by its type


def test_an_error_of_the_listener_does_not_go_unheard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = []

    def attempt(ranks: Ranks, *_: Any) -> None:
        for number in range(3):
            ranks.events.put(Progress("train", number, None, "steps"))

    def listen(event: Event) -> None:
        assert isinstance(event, Progress)
        received.append(event.done)
        if event.done == 1:
            raise OSError("disk full")

    monkeypatch.setattr(Ranks, "run", attempt)
    with pytest.raises(OSError, match="disk full"):
        run_workers(TRAIN, lambda: None, tiny_config(tmp_path).train.resources, {}, listen)
    assert received == [0, 1, 2]


def test_the_scale_of_raw_embeddings_is_an_input(tmp_path: Path) -> None:
    """The fingerprint of features contains the scale; raw embeddings are scaled when they are read."""
    workspace, tree = tiny_workspace(tmp_path), tiny_config(tmp_path).model_dump(mode="json")
    scales = {}
    for name in ("morec", "llminit"):
        tree["model"]["encoder"] = {"name": name}
        scales[name] = TRAIN.inputs(parse_config(tree), workspace).get("scale")
    assert scales == {"morec": tree["decompose"]["scale"], "llminit": None}
