"""Runs a function on a group of Ray Train workers: process group, threads, restarts."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray.train import ControllerError, FailureConfig, RunConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from alphafuse.config.resources import RankResources
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import AlphafuseError, ResourceError
from alphafuse.events import Event, FanOut, Listener, Progress, WorkersGone, WorkersRestarted
from alphafuse.stages import Stage
from jobs.execution.elasticity import await_places, released_places, scaling
from jobs.execution.event_relay import EventRelay
from jobs.execution.placement import require_places
from jobs.execution.ray_internals import is_startup_timeout, refresh_ray_trains_view
from jobs.execution.worker_metrics import Serving, worker_listener

WRAPPED_AS = ("cause", "health_check_failure", "__cause__")
"""Attributes in which Ray's exceptions keep the exception that they wrap."""

WorkerFunction = Callable[..., Any]


TUNING = {
    # Memory that a step frees stays in the process for the next one: by default glibc gives blocks of some MiB back to
    # the system, and the next step pays for it in page faults (docs/performance.md).
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    # Large tensors in large pages: rows from all over a table are then found without a walk through page tables.
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Environment variables that speed a rank up and change no result."""


def run_workers(
    stage: Stage,
    function: WorkerFunction,
    resources: RankResources,
    arguments: dict[str, Any],
    listen: Listener,
    serving: Serving | None = None,
    resumes: bool = False,
) -> Any:
    """Call `function(communicator=…, device=…, listen=…, **arguments)` on `resources.workers` ranks, or, where the
    cluster has no room for so many, on as many as it has, but no fewer than `resources.fewest_workers`.

    When a worker dies, all are started again, up to `resources.max_restarts` times without progress in between: the
    function must continue from what the workspace holds, on any number of ranks. Errors that a user can cure are raised
    at once.

    Args:
        stage: stage that the workers do a part of, for events and messages.
        serving: where the workers serve their metrics; None if they do not.
        resumes: the function keeps most of what it has done, so that it may be stopped when there is room for more
            ranks.

    Returns:
        What the function returned on rank 0 (small: it travels through the driver).

    Raises:
        ResourceError: the cluster cannot hold the workers, or they died too often.
        AlphafuseError: as raised by the function.
    """
    progress = _Farthest()
    with EventRelay(FanOut(progress, listen)) as relay:
        settings = {
            "stage": stage.name, "function": function, "arguments": arguments, "events": relay.queue, "serving": serving
        }  # fmt: skip
        require_places(stage.resources, resources)
        restarts = deaths = 0  # deaths: in a row, without progress in between
        while True:
            before = progress.done
            try:
                return _fit(settings, resources, resumes)
            except (TrainingFailedError, ray.exceptions.RayActorError) as failure:
                if not _found_no_place(failure):
                    restarts, deaths = restarts + 1, 1 if progress.done > before else deaths + 1
                    cause = reason_to_restart(stage.name, failure, deaths > resources.max_restarts)
                    again = f"starting all again, {deaths} of {resources.max_restarts} times"
                    message = f"a worker died ({cause}); {again}"
                    listen(WorkersRestarted(stage.name, message, restarts))
            finally:
                if serving is not None:
                    relay.queue.put(WorkersGone(stage.name))
            await_places(stage.name, stage.resources, resources, resources.fewest_workers, listen)


def _found_no_place(failure: Exception) -> bool:
    """Tell whether no worker was started, since machines are held by others, have yet to come, or are lost."""
    return is_startup_timeout(_failures(failure)[0])


class _Farthest:
    """A listener that knows how far the workers have got.

    Attributes:
        done: the highest count that a progress event has reported.
    """

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.done = max(self.done, event.done)


def reason_to_restart(stage: str, failure: Exception, last: bool) -> str:
    """Return one line on why the workers failed; raise errors that no restart cures, and any after the last restart."""
    causes = [_cause(error) for error in _failures(failure)]
    for cause in causes:
        if isinstance(cause, AlphafuseError):
            raise cause from None
    # A worker that lost its peer reports a broken connection: the death of the peer says more.
    first = next((cause for cause in causes if isinstance(cause, ray.exceptions.RayError)), causes[0])
    reason = (str(first).strip() or type(first).__name__).splitlines()[0]
    if not last:
        return reason
    if not isinstance(first, ray.exceptions.RayError):
        raise failure  # a fault in the code, with its traceback
    raise ResourceError(
        f"the workers of {stage} died again and again, the last time with: {reason}. Most often a machine is out of "
        "memory: use more workers (each holds a part of the item table), or lower train.batch_size or "
        "train.loss.memory_mib. The same command continues from what is finished"
    ) from failure


def _fit(settings: dict[str, Any], resources: RankResources, resumes: bool) -> Any:
    """One attempt: start the workers, run the function, give back what rank 0 returned."""
    refresh_ray_trains_view()
    with tempfile.TemporaryDirectory() as folder:
        # mypy sees the older of Ray Train's two interfaces, which ray.train exports only on request.
        trainer = TorchTrainer(
            _worker_main,
            train_loop_config=settings,
            torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
            scaling_config=scaling(resources, resumes),
            run_config=RunConfig(  # type: ignore[call-arg]
                storage_path=folder,
                worker_runtime_env={"env_vars": worker_environment(resources)},
                # By default, Ray Train tries for ever to start workers whose machine is lost.
                failure_config=FailureConfig(controller_failure_limit=0),  # type: ignore[call-arg]
            ),
        )
        with _interruptible(), released_places():
            return trainer.fit().return_value  # type: ignore[attr-defined]


def worker_environment(resources: RankResources) -> dict[str, str]:
    """Environment variables of a rank's process."""
    environment = {"OMP_NUM_THREADS": str(max(1, int(resources.cpus))), **TUNING}
    if not resources.gpus:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment | resources.environment


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C raise `KeyboardInterrupt` as in any program: Ray Train sets a handler of its own, which ends the
    process as if all were well, and leaves it in place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, handler)


def _worker_main(settings: dict[str, Any]) -> Any:
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    communicator = Communicator()
    worker, send = str(communicator.rank), settings["events"].put
    with worker_listener(settings["stage"], worker, settings["serving"], send, communicator.world_size) as listen:
        return settings["function"](
            communicator=communicator, device=get_device(), listen=listen, **settings["arguments"]
        )


def _failures(failure: Exception) -> list[BaseException]:
    """The exceptions that Ray Train collected: one per failed worker, or that of a worker which died as it started."""
    if isinstance(failure, WorkerGroupError):
        return list(failure.worker_failures.values())
    return [failure.controller_failure if isinstance(failure, ControllerError) else failure]


def _cause(error: BaseException) -> BaseException:
    """The exception that the worker function raised, or the death of its process, out of what Ray wraps around it."""
    while inner := next(filter(None, (getattr(error, name, None) for name in WRAPPED_AS)), None):
        error = inner
    return error
