"""Training that loses workers, machines and its driver gives the model of an undisturbed training."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from support.faults import fault_injection as injection
from support.faults.fault_injection import Fault, happened, train_with_faults
from support.faults.fault_machines import CPUS, DEADLINE_SECONDS, joined
from support.processes.waiting import wait_until
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Event, WorkerServing, WorkersGone, WorkersRestarted
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.execution import elasticity
from jobs.execution.reporting.worker_metrics import serving
from jobs.stages import train

ray.cloudpickle.register_pickle_by_value(injection)  # the workers cannot import modules of the tests
pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

SETTINGS: dict[str, Any] = {"workers": 2, "checkpoint_steps": 2, "max_epochs": 3}
STEPS_PER_EPOCH = 3


def _prepared(folder: Path, **settings: Any) -> Config:
    tiny_workspace(folder)
    return tiny_config(folder, **{**SETTINGS, **settings})


def _result(config: Config) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Item vectors, and the history without its times."""
    workspace = Workspace(config.workspace)
    workspace.artifact("model").verify()
    history = workspace.artifact("model").require().details["history"]
    kept = [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]
    return load_trained(config, workspace, Communicator()).item_vectors(), kept


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, Any]:
    config = _prepared(tmp_path_factory.mktemp("undisturbed"))
    train.run(config, Workspace(config.workspace), lambda event: None)
    return _result(config)


def _check_addresses(events: list[Event]) -> None:
    """Check that two workers served their metrics, then none, then two others, then none."""
    changes = [event for event in events if isinstance(event, WorkerServing | WorkersGone)]
    assert [type(event) for event in changes] == [WorkerServing, WorkerServing, WorkersGone] * 2
    served = [event for event in changes if isinstance(event, WorkerServing)]
    assert sorted(event.worker for event in served[:2]) == sorted(event.worker for event in served[2:]) == ["0", "1"]
    assert all(event.address.startswith("127.0.0.1:") for event in served)


def test_a_worker_killed_at_a_random_step(tmp_path: Path, undisturbed: tuple[torch.Tensor, Any]) -> None:
    config = _prepared(tmp_path)
    fault = Fault(rank=random.randrange(2), step=random.randrange(3 * STEPS_PER_EPOCH))
    events: list[Event] = []
    assert train_with_faults(config, [fault], events.append, serving=serving(config)) == [2, 2], fault
    assert len(happened(config)) == 1
    (warning,) = [event.message for event in events if isinstance(event, WorkersRestarted)]
    assert re.match(r"a worker died \(.+\); starting all again, 1 of 3 times", warning)
    _check_addresses(events)
    vectors, history = _result(config)
    assert torch.equal(vectors, undisturbed[0]), fault
    assert history == undisturbed[1], fault


def test_the_driver_killed_and_the_same_job_submitted_again(
    tmp_path: Path, undisturbed: tuple[torch.Tensor, Any]
) -> None:
    config = _prepared(tmp_path)
    program = [sys.executable, injection.__file__, str(tmp_path), "0.3"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(program, env=environment) as driver:
        wait_until(
            lambda: list(tmp_path.glob("checkpoints/*/manifest.json")) or driver.poll() is not None, DEADLINE_SECONDS
        )
        driver.send_signal(signal.SIGKILL)
    assert Workspace(config.workspace).artifact("model").manifest() is None
    train.run(config, Workspace(config.workspace), lambda event: None)
    vectors, history = _result(config)
    assert torch.equal(vectors, undisturbed[0])
    assert history == undisturbed[1]


def test_a_machine_lost_while_it_writes_a_checkpoint_shrinks_the_run_and_a_new_one_grows_it(
    tmp_path: Path,
    ray_cluster: Cluster,
    undisturbed: tuple[torch.Tensor, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(elasticity, "RESIZE_SECONDS", 1.0)
    config = _prepared(tmp_path, min_workers=1, cpus=CPUS)
    with joined(ray_cluster, 2) as machines:
        faults = [Fault(rank=1, step=4, moment="checkpoint", lost="machine")]
        with ThreadPoolExecutor(1) as pool:
            training = pool.submit(train_with_faults, config, faults, lambda event: None, alone_until=7)
            started = tmp_path / "faults" / "attempts"
            wait_until(
                lambda: training.done() or (started.exists() and started.read_text().endswith("\n1\n")),
                DEADLINE_SECONDS,
            )
            machines.add()
            attempts = training.result()
    assert happened(config) == ["rank 1 step 4 checkpoint machine"]
    assert attempts == [2, 1, 2]
    vectors, history = _result(config)
    torch.testing.assert_close(vectors, undisturbed[0], rtol=0, atol=1e-5)
    for entry, wanted in zip(history, undisturbed[1], strict=True):
        assert entry["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
        assert entry["validation"] == pytest.approx(wanted["validation"], abs=1e-5)
