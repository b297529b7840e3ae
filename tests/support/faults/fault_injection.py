"""Faults as data (rank, step, what is lost), and a training in which they happen.

As a program, this file trains until someone kills it: `fault_injection.py WORKSPACE SECONDS_PER_STEP [ADDRESS]`, on two
ranks of its own, or on a cluster, where the number of ranks may shrink.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Listener
from alphafuse.stages import TRAIN
from alphafuse.storage.filesystem import folder as storage
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import Checkpoints
from alphafuse.training.loop import Trainer
from jobs.execution.reporting.worker_metrics import Serving
from jobs.execution.worker_group import run_workers
from jobs.stages import train


@dataclass(frozen=True)
class Fault:
    """The loss of a rank. It happens once, since the training would never end otherwise.

    Attributes:
        step: step before which it happens, or first step whose checkpoint it interrupts.
        moment: before the step, or while its checkpoint is written.
        lost: the rank's process, or its machine.
    """

    rank: int
    step: int
    moment: Literal["step", "checkpoint"] = "step"
    lost: Literal["process", "machine"] = "process"


def train_with_faults(
    config: Config,
    faults: list[Fault],
    listen: Listener,
    seconds_per_step: float = 0.0,
    alone_until: int = sys.maxsize,
    serving: Serving | None = None,
) -> list[int]:
    """Run the stage `train` on a prepared workspace; returns the number of ranks of each attempt.

    Args:
        seconds_per_step: time that each step waits.
        alone_until: a rank that is alone waits for others from this step on.
        serving: how the ranks serve their metrics.
    """
    workspace = Workspace(config.workspace)
    folder = Path(config.workspace) / "faults"
    folder.mkdir(exist_ok=True)
    inputs = TRAIN.inputs(config, workspace)
    arguments = {"config": config, "workspace": workspace, "inputs": inputs, "faults": faults, "folder": folder}
    arguments |= {"seconds_per_step": seconds_per_step, "alone_until": alone_until}
    run_workers(TRAIN, _train_on_worker, config.train.resources, arguments, listen, serving, resumes=True)
    return [int(line) for line in (folder / "attempts").read_text().split()]


def happened(config: Config) -> list[str]:
    """Names of the faults that have happened."""
    return sorted(path.name for path in (Path(config.workspace) / "faults").glob("rank*"))


def _train_on_worker(
    *,
    faults: list[Fault],
    folder: Path,
    seconds_per_step: float,
    alone_until: int,
    communicator: Communicator,
    **rest: Any,
) -> Any:
    if communicator.rank == 0:
        with (folder / "attempts").open("a") as file:
            file.write(f"{communicator.world_size}\n")
    own = [fault for fault in faults if fault.rank == communicator.rank]
    take_step, save = Trainer.training_step, Checkpoints.save

    def training_step(self: Trainer, plan: Any) -> Any:
        time.sleep(seconds_per_step)
        while communicator.world_size == 1 and self.state.step >= alone_until:
            time.sleep(0.1)
        for fault in own:
            if fault.moment == "step" and fault.step == self.state.step:
                _inject(fault, folder)
        return take_step(self, plan)

    def saving(self: Checkpoints, step: int, *arguments: Any) -> None:
        for fault in own:
            if fault.moment == "checkpoint" and fault.step <= step and not _marker(fault, folder).exists():
                _die_in_the_middle_of_a_file(fault, folder)
        save(self, step, *arguments)

    Trainer.training_step = training_step  # type: ignore[method-assign]
    Checkpoints.save = saving  # type: ignore[method-assign]
    return train.train_on_worker(communicator=communicator, **rest)


def _die_in_the_middle_of_a_file(fault: Fault, folder: Path) -> None:
    """Let the fault happen when half of the next file of this process is written."""
    write = storage.HashedStream.write

    def write_half(self: storage.HashedStream, content: Any) -> int:
        write(self, memoryview(content)[: len(content) // 2])
        self.flush()
        _inject(fault, folder)
        raise AssertionError("the fault has happened before")

    storage.HashedStream.write = write_half  # type: ignore[method-assign]


def _marker(fault: Fault, folder: Path) -> Path:
    return folder / f"rank {fault.rank} step {fault.step} {fault.moment} {fault.lost}"


def _inject(fault: Fault, folder: Path) -> None:
    """Kill this process or its machine, unless the fault has happened before."""
    marker = _marker(fault, folder)
    if marker.exists():
        return
    marker.touch()
    if fault.lost == "machine":
        os.kill(os.getppid(), signal.SIGKILL)  # the raylet
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    workspace, seconds, *address = sys.argv[1:]
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    ray.init(*address, **quiet) if address else ray.init("local", num_cpus=2, include_dashboard=False, **quiet)
    while ray.cluster_resources().get("CPU", 0) < 2:
        time.sleep(0.2)  # until both hosts have joined
    shrinks = {"min_workers": 1} if address else {}
    slow = tiny_config(Path(workspace), workers=2, checkpoint_steps=2, max_epochs=3, **shrinks)
    train_with_faults(slow, [], lambda event: None, float(seconds))
