"""Runs a function on a group of Ray Train workers: process group, threads, restarts, events back to the driver."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.train import RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Queue

from alphafuse.collectives import Communicator
from alphafuse.config import TrainConfig
from alphafuse.errors import AlphafuseError, ResourceError
from alphafuse.events import Event, Listener

WorkerFunction = Callable[..., Any]


def run_workers(
    stage: str, function: WorkerFunction, config: TrainConfig, arguments: dict[str, Any], listen: Listener
) -> Any:
    """Call `function(communicator=…, device=…, listen=…, **arguments)` on `config.workers` ranks.

    When a worker dies, all are started again, up to `config.max_restarts` times: the function must continue from what
    the workspace holds. Errors that a user can cure are raised at once.

    Args:
        stage: name of the stage, for events.

    Returns:
        What the function returned on rank 0 (small: it travels through the driver).

    Raises:
        ResourceError: the cluster is smaller than the workers ask for.
        AlphafuseError: as raised by the function.
    """
    _check_resources(config)
    events: Queue = Queue(actor_options={"num_cpus": 0})
    relay = threading.Thread(target=_relay, args=(events, listen), daemon=True)
    relay.start()
    try:
        for restarts in itertools.count(1):
            try:
                return _fit({"function": function, "arguments": arguments, "events": events}, config)
            except WorkerGroupError as failure:
                causes = [_cause(error) for error in failure.worker_failures.values()]
                for cause in causes:
                    if isinstance(cause, AlphafuseError):
                        raise cause from None
                if restarts > config.max_restarts:
                    raise
                first = str(causes[0]).strip().splitlines()[0]
                message = f"a worker died ({first}); starting all again, {restarts} of {config.max_restarts} times"
                listen(Event(stage, "warning", {"message": message}))
    finally:
        events.put(None)
        relay.join()
        events.shutdown()


def _fit(settings: dict[str, Any], config: TrainConfig) -> Any:
    """One attempt: start the workers, run the function, give back what rank 0 returned."""
    per_worker = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        per_worker["GPU"] = config.gpus_per_worker
    environment = {"OMP_NUM_THREADS": str(max(1, int(config.cpus_per_worker)))}
    if not config.gpus_per_worker:
        environment["DS_ACCELERATOR"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        # mypy sees the older of Ray Train's two interfaces, which ray.train exports only on request.
        trainer = TorchTrainer(
            _worker_main,
            train_loop_config=settings,
            torch_config=TorchConfig(backend="nccl" if config.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.workers, use_gpu=config.gpus_per_worker > 0, resources_per_worker=per_worker
            ),
            run_config=RunConfig(  # type: ignore[call-arg]
                storage_path=folder, worker_runtime_env={"env_vars": environment}
            ),
        )
        return trainer.fit().return_value  # type: ignore[attr-defined]


def _worker_main(settings: dict[str, Any]) -> Any:
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return settings["function"](
        communicator=Communicator(), device=get_device(), listen=settings["events"].put, **settings["arguments"]
    )


def _cause(error: BaseException) -> BaseException:
    """The exception that the worker function raised, out of what Ray wraps around it."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    return error


def _relay(events: Queue, listen: Listener) -> None:
    while (event := events.get()) is not None:
        listen(event)


def _check_resources(config: TrainConfig) -> None:
    have = ray.cluster_resources()
    for name, each in (("CPU", config.cpus_per_worker), ("GPU", config.gpus_per_worker)):
        wanted = each * config.workers
        if wanted > have.get(name, 0):
            raise ResourceError(
                f"train.workers: {config.workers} workers with {each:g} {name} each need {wanted:g} {name}, but the "
                f"cluster has {have.get(name, 0):g}; lower train.workers or train.{name.lower()}s_per_worker"
            )
