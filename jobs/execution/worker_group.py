"""Runs functions on the ranks of a group: as many as there is room for, restarts, groups kept between stages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import ray
from ray.train import ControllerError, TrainingFailedError, WorkerGroupError
from ray.util.queue import Queue

from alphafuse.config.sections.resources import RankResources
from alphafuse.errors import AlphafuseError, ResourceError
from alphafuse.events import Event, FanOut, Listener, Progress, WorkersGone, WorkersRestarted
from alphafuse.stages import Stage
from jobs.execution.elasticity import await_places
from jobs.execution.placement import require_places
from jobs.execution.rank_group import RankGroup, RankTask
from jobs.execution.ray_internals import is_startup_timeout
from jobs.execution.reporting.event_relay import EventRelay, event_queue
from jobs.execution.reporting.worker_metrics import Serving

WRAPPED_AS = ("cause", "health_check_failure", "__cause__")
"""Attributes in which Ray's exceptions keep the exception that they wrap."""

WorkerFunction = Callable[..., Any]


class Ranks:
    """The ranks of a driver, started when they are needed and kept from one task to the next that wants the same.

    Args:
        end: once it is set, tasks end as Ctrl-C ends them.
    """

    def __init__(self, end: threading.Event) -> None:
        self._end = end
        self._queue = ExitStack()
        self._group: RankGroup | None = None
        self._started_for: tuple[RankResources, bool] | None = None

    @cached_property
    def events(self) -> Queue:
        """The queue into which all ranks put their events."""
        return self._queue.enter_context(event_queue())

    def run(self, task: RankTask, resources: RankResources, resumes: bool) -> Any:
        """One attempt at a task, see `RankGroup.run`; after any error the next one begins with new ranks."""
        wanted = (resources, resumes and resources.fewest_workers < resources.workers)
        if self._started_for != wanted:
            self.end_group()
        if self._group is None:
            self._group, self._started_for = RankGroup(*wanted, self.events), wanted
        try:
            return self._group.run(task, self._end)
        except BaseException:
            self._group.give_up()
            self._group = self._started_for = None
            raise

    def close(self) -> None:
        """End ranks and queue."""
        self.end_group()
        self._queue.close()

    def end_group(self) -> None:
        """End the ranks that wait: others need their places."""
        if self._group is not None:
            self._group.close()
        self._group = self._started_for = None


_kept: ContextVar[Ranks | None] = ContextVar("ranks", default=None)


@contextmanager
def keeping_ranks(end: threading.Event | None = None) -> Iterator[Ranks]:
    """Keep the ranks of one call of `run_workers` for the next one, until the outermost such block ends.

    Args:
        end: event of the outermost block; when another thread sets it, the work of the ranks ends with
            `KeyboardInterrupt`, as Ctrl-C would end it.
    """
    if (outer := _kept.get()) is not None:
        yield outer
        return
    ranks = Ranks(end or threading.Event())
    before = _kept.set(ranks)
    try:
        yield ranks
    finally:
        _kept.reset(before)
        ranks.close()


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
    progress, task = _Farthest(), RankTask(stage, function, arguments, serving)
    require_places(stage.resources, resources)
    with keeping_ranks() as ranks, EventRelay(FanOut(progress, listen), ranks.events):
        restarts = deaths = 0  # deaths: in a row, without progress in between
        while True:
            before = progress.done
            try:
                return ranks.run(task, resources, resumes)
            except (TrainingFailedError, ray.exceptions.RayActorError) as failure:
                if not _found_no_place(failure):
                    restarts, deaths = restarts + 1, 1 if progress.done > before else deaths + 1
                    cause = reason_to_restart(stage.name, failure, deaths > resources.max_restarts)
                    again = f"starting all again, {deaths} of {resources.max_restarts} times"
                    message = f"a worker died ({cause}); {again}"
                    listen(WorkersRestarted(stage.name, message, restarts))
            finally:
                if serving is not None:
                    ranks.events.put(WorkersGone(stage.name))
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
