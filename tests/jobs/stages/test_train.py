"""The train stage on real Ray Train workers: the same model on 1 and 2 workers, and after a worker was killed."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from support.tiny_workspace import NUM_ITEMS, tiny_config, tiny_features, tiny_workspace

from alphafuse.config import Config, parse_config
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import DataError, ResourceError, WorkspaceError
from alphafuse.events import (
    EpochMetrics,
    Event,
    Progress,
    TrainingProgress,
    WorkerServing,
    WorkersGone,
    WorkersRestarted,
)
from alphafuse.stages import TRAIN
from alphafuse.storage.matrices import read_rows
from alphafuse.storage.workspace import Workspace
from alphafuse.training.trained_model import load_trained
from jobs.execution.worker_group import run_workers
from jobs.execution.worker_metrics import serving
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


TWO_WORKERS = {"workers": 2, "checkpoint_steps": 2}


@pytest.fixture(scope="module")
def two(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What two workers trained."""
    return _train(tmp_path_factory.mktemp("two"), **TWO_WORKERS)[0]


def test_two_workers_train_the_model_of_one(tmp_path: Path, two: Workspace) -> None:
    one, events = _train(tmp_path / "one")
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


def _dies_once(*, marker: str, communicator: Communicator, **rest: Any) -> Any:
    from alphafuse.training.loop import Trainer

    step = Trainer.training_step

    def dying_step(self: Trainer, batches: Any) -> Any:
        if self.progress.step == 5 and communicator.rank == 1 and not os.path.exists(marker):
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batches)

    Trainer.training_step = dying_step  # type: ignore[method-assign]
    return train.train_on_worker(communicator=communicator, **rest)


def _check_addresses(events: list[Event]) -> None:
    """Two workers served their metrics, then none, then two others, then none."""
    told = [event for event in events if isinstance(event, WorkerServing | WorkersGone)]
    assert [type(event) for event in told] == [WorkerServing, WorkerServing, WorkersGone] * 2
    served = [event for event in told if isinstance(event, WorkerServing)]
    assert sorted(event.worker for event in served[:2]) == sorted(event.worker for event in served[2:]) == ["0", "1"]
    assert all(event.address.startswith("127.0.0.1:") for event in served)


def test_a_killed_worker_changes_nothing(tmp_path: Path, two: Workspace) -> None:
    broken = tiny_workspace(tmp_path / "broken")
    config = tiny_config(tmp_path / "broken", **TWO_WORKERS)
    arguments = {"config": config, "workspace": broken, "inputs": TRAIN.inputs(config, broken)}
    events: list[Event] = []
    arguments["marker"] = str(tmp_path / "killed")
    run_workers("train", _dies_once, config.train.resources, arguments, events.append, serving(config))
    assert (tmp_path / "killed").exists()
    (warning,) = [event.message for event in events if isinstance(event, WorkersRestarted)]
    assert re.match(r"a worker died \(.+\); starting all again, 1 of 3 times", warning)
    _check_addresses(events)
    assert torch.equal(_vectors(two), _vectors(broken))


def test_more_workers_than_the_cluster_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"asks for 50 workers with 1 CPUs and 0 GPUs each, but .* room for 4"):
        _train(tmp_path, workers=50)


def _always_dies(*, log: Path, **_: Any) -> None:
    with log.open("a") as file:
        file.write("called\n")
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_again_and_again_end_with_advice(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, max_restarts=1)
    with pytest.raises(ResourceError, match=r"died again and again, the last time with: .+ out of memory"):
        run_workers("train", _always_dies, config.train.resources, {"log": tmp_path / "log"}, lambda event: None)
    assert (tmp_path / "log").read_text() == "called\n" * 2


def _fails_without_a_word(*, log: Path, **_: Any) -> str:
    if log.exists():
        return "second time"
    log.touch()
    raise MemoryError


def test_an_error_without_a_text_is_named_by_its_type(tmp_path: Path) -> None:
    events: list[Event] = []
    config = tiny_config(tmp_path).train
    assert (
        run_workers("train", _fails_without_a_word, config, {"log": tmp_path / "log"}, events.append) == "second time"
    )
    assert isinstance(events[0], WorkersRestarted)
    assert "a worker died (MemoryError)" in events[0].message


def _tells(*, listen: Any, **_: Any) -> None:
    for number in range(3):
        listen(Progress("train", number, None, "steps"))


def test_an_error_of_the_listener_does_not_go_unheard(tmp_path: Path) -> None:
    heard = []

    def listen(event: Event) -> None:
        assert isinstance(event, Progress)
        heard.append(event.done)
        if event.done == 1:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_workers("train", _tells, tiny_config(tmp_path).train.resources, {}, listen)
    assert heard == [0, 1, 2]


def _raises(*, log: Path, **_: Any) -> None:
    with log.open("a") as file:
        file.write("called\n")
    raise DataError("the cause")


def test_what_a_user_can_cure_comes_out_as_raised_and_at_once(tmp_path: Path) -> None:
    config: Config = tiny_config(tmp_path)
    with pytest.raises(DataError, match="the cause"):
        run_workers("train", _raises, config.train.resources, {"log": tmp_path / "log"}, lambda event: None)
    assert (tmp_path / "log").read_text() == "called\n"


def test_the_scale_of_raw_embeddings_is_an_input(tmp_path: Path) -> None:
    """Features have it in their fingerprint; raw embeddings are scaled as they are read."""
    workspace, tree = tiny_workspace(tmp_path), tiny_config(tmp_path).model_dump(mode="json")
    scales = {}
    for name in ("morec", "llminit"):
        tree["model"]["encoder"] = {"name": name}
        scales[name] = TRAIN.inputs(parse_config(tree), workspace).get("scale")
    assert scales == {"morec": tree["decompose"]["scale"], "llminit": None}
