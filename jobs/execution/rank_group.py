"""Ranks that carry out one task after another: a run of Ray Train that lives through several stages.

Processes, imports and a process group take seconds to start, so the stages that run on ranks share them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig
from ray.train.torch import TorchConfig, get_device
from ray.util.queue import Queue

from alphafuse.config.sections.resources import RankResources
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.devices import prepare_device
from alphafuse.stages import Stage
from jobs.execution.elasticity import released_places, scaling
from jobs.execution.embedded_cluster import MEETING_VARIABLE
from jobs.execution.placement import beside_this_process
from jobs.execution.ray_internals import LeanTrainer, MeetingInFolder, is_in_task, refresh_ray_trains_view
from jobs.execution.reporting.worker_metrics import Serving, worker_listener

LOOK_SECONDS = 0.5
"""Seconds between two looks whether the ranks have died, or shall end, while their result is awaited."""
GIVE_UP_SECONDS = 10.0
"""Seconds that ranks may take to end when they are given up; a group that is still starting ends by itself later."""

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


@dataclass(frozen=True)
class RankTask:
    """Work that every rank of a group does a part of.

    Attributes:
        stage: stage that the work belongs to, for events.
        function: called as `function(communicator=…, device=…, listen=…, **arguments)`.
        serving: where the ranks serve their metrics meanwhile; None if they do not.
    """

    stage: Stage
    function: Callable[..., Any]
    arguments: dict[str, Any]
    serving: Serving | None


class RankGroup:
    """Ranks that wait for tasks until they are closed or one of them dies.

    Args:
        grows: whether Ray Train may stop the ranks in a task to start it again on more of them.
        events: queue into which the ranks put their events.
    """

    def __init__(self, resources: RankResources, grows: bool, events: Queue) -> None:
        self._board = _Board.options(  # type: ignore[attr-defined]
            scheduling_strategy=beside_this_process(), max_concurrency=2 * resources.workers + 8
        ).remote()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._fit, args=(resources, grows, events), daemon=True)
        self._thread.start()

    def run(self, task: RankTask, end: threading.Event) -> Any:
        """Carry out a task on all ranks; returns what its function returned on rank 0.

        Args:
            end: ends the wait for the task when it is set.

        Raises:
            KeyboardInterrupt: `end` was set.
            TrainingFailedError, RayActorError: a rank failed or died, now or since the last task. No rank is left.
        """
        # As bytes, so that the board need not import what a task is made of.
        ray.get(self._board.post.remote(ray.cloudpickle.dumps(task)))
        result = self._board.result.remote()
        while not ray.wait([result], timeout=LOOK_SECONDS)[0]:
            if end.is_set():
                raise KeyboardInterrupt
            if self._ended.done():
                self._ended.result()
                raise RuntimeError("the ranks ended before their task did")
        return ray.cloudpickle.loads(ray.get(result))

    def close(self) -> None:
        """End the ranks, which have nothing to do."""
        with suppress(RayActorError):  # a board that is dead has taken its ranks with it
            ray.get(self._board.post.remote(None))
        self._thread.join()
        ray.kill(self._board)

    def give_up(self) -> None:
        """End the ranks in whatever they do."""
        ray.kill(self._board)
        self._thread.join(GIVE_UP_SECONDS)

    def _fit(self, resources: RankResources, grows: bool, events: Queue) -> None:
        try:
            refresh_ray_trains_view()
            # In the folder of an embedded Ray, which is deleted even if this process is killed.
            with tempfile.TemporaryDirectory(dir=os.environ.get(MEETING_VARIABLE)) as folder, released_places():
                # mypy sees the older of Ray Train's two interfaces, which ray.train exports only on request.
                LeanTrainer(
                    releases_places=not is_in_task(),
                    train_loop_per_worker=_carry_out_tasks,
                    train_loop_config={"board": self._board, "events": events, "timeout": resources.timeout},
                    torch_config=_meeting("nccl" if resources.gpus else "gloo", resources.timeout),
                    scaling_config=scaling(resources, grows),
                    run_config=RunConfig(  # type: ignore[call-arg]
                        storage_path=folder,
                        worker_runtime_env={"env_vars": worker_environment(resources)},
                        # By default, Ray Train tries for ever to start workers whose machine is lost.
                        failure_config=FailureConfig(controller_failure_limit=0),  # type: ignore[call-arg]
                    ),
                ).fit()
        except BaseException as error:  # for the thread that waits in `run`
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)


def _meeting(backend: str, timeout: int) -> TorchConfig:
    """The way in which ranks meet: on a Ray that is embedded in its driver, without listening to other machines."""
    folder = os.environ.get(MEETING_VARIABLE)
    if folder is None:
        return TorchConfig(backend, timeout_s=timeout)
    return MeetingInFolder(backend, timeout_s=timeout, folder=folder)


def worker_environment(resources: RankResources) -> dict[str, str]:
    """Environment variables of a rank's process."""
    environment = {"OMP_NUM_THREADS": str(max(1, int(resources.cpus))), **TUNING}
    if not resources.gpus:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment | resources.environment


@ray.remote(num_cpus=0)
class _Board:
    """The task that the ranks of a group shall carry out, and its result; one at a time."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._number = 0
        self._task: bytes | None = None
        self._result: bytes | None = None

    async def post(self, task: bytes | None) -> None:
        """Put up the next task; None ends the ranks."""
        async with self._changed:
            self._number, self._task, self._result = self._number + 1, task, None
            self._changed.notify_all()

    async def task(self, done: int) -> tuple[int, bytes | None]:
        """Wait for the task after number `done`, and give its number with it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._number > done and self._result is None)
            return self._number, self._task

    async def finish(self, result: bytes) -> None:
        """Keep what the task has given."""
        async with self._changed:
            self._result = result
            self._changed.notify_all()

    async def result(self) -> bytes | None:
        """Wait until the task is finished."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._result is not None)
            return self._result

    async def until_killed(self) -> None:
        """Wait for the end of this actor."""
        await asyncio.Event().wait()


def _carry_out_tasks(settings: dict[str, Any]) -> None:
    """Take part in the tasks of the board as one rank, until there are no more."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    prepare_device(get_device())
    communicator = Communicator(get_device(), timedelta(seconds=settings["timeout"]))
    board, number = settings["board"], 0
    threading.Thread(target=_end_with, args=(board,), daemon=True).start()
    while True:
        number, packed = ray.get(board.task.remote(number))
        if packed is None:
            return
        value = _carry_out(ray.cloudpickle.loads(packed), communicator, settings["events"])
        communicator.barrier()  # a task is finished when every rank has done its part
        if communicator.rank == 0:
            ray.get(board.finish.remote(ray.cloudpickle.dumps(value)))
        del value
        gc.collect()  # a model of one task must not lie beside that of the next


def _carry_out(task: RankTask, communicator: Communicator, events: Queue) -> Any:
    worker, workers = str(communicator.rank), communicator.world_size
    with worker_listener(task.stage.name, worker, task.serving, events.put, workers) as listen:
        return task.function(communicator=communicator, device=get_device(), listen=listen, **task.arguments)


def _end_with(board: ray.actor.ActorHandle) -> None:
    """End this process when the board is killed, or dies with the driver."""
    try:
        ray.get(board.until_killed.remote())
    finally:
        os._exit(1)
