"""Makes Ray tasks and runs them side by side: a bounded number at a time, results in the order of submission or as they
come.

Owns the way errors come back; knows nothing of what the tasks do. Tasks that run when one fails, or when nobody asks
for results any more, run to their end: they are few and short, and `ray.cancel` on a task that is about to end can
abort the driver (Ray 2.60: "Tried to complete task that was not pending", the race of ray-project/ray#54798).
"""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import RayTaskError

from alphafuse.config.sections.resources import Resources
from alphafuse.errors import AlphafuseError
from jobs.execution.placement import task_options


def remote_task(function: Callable[..., Any], resources: Resources) -> Callable[..., ray.ObjectRef]:
    """Make a function a Ray task that takes the place of one worker.

    With a GPU each call has a process of its own, which gives the GPU's memory back: Ray's rule for functions that are
    declared with their GPU, and not for those that get it from `options`. A process that was reused would also go on
    with the GPU that it saw first, whichever Ray gives it.
    """
    remote: Callable[..., ray.ObjectRef] = ray.remote(**task_options(resources))(function).remote
    return remote


def in_order(submit: Callable[[Any], ray.ObjectRef], arguments: Iterable[Any], limit: int) -> Iterator[Any]:
    """Yield the results of `submit(argument)` in the order of `arguments`, with at most `limit` tasks unfinished.

    Results that finish early wait in Ray's object store. A task whose machine is lost is run again by Ray.

    Raises:
        AlphafuseError: as raised in a task, without Ray's traceback around it.
    """
    results: deque[ray.ObjectRef] = deque()
    unfinished: list[ray.ObjectRef] = []
    for argument in arguments:
        while len(unfinished) >= limit:
            _, unfinished = ray.wait(unfinished, num_returns=1)
            while results and results[0] not in unfinished:
                yield result(results.popleft())
        reference = submit(argument)
        results.append(reference)
        unfinished.append(reference)
    while results:
        yield result(results.popleft())


def as_finished(
    submit: Callable[[Any], ray.ObjectRef], arguments: Iterable[Any], limit: int
) -> Iterator[tuple[Any, Any]]:
    """Yield (argument, result of `submit(argument)`) as tasks end, with at most `limit` of them unfinished.

    A task that fails does not stop the others: the exception is its result, as `result` raises it.
    """
    waiting = deque(arguments)
    running: dict[ray.ObjectRef, Any] = {}
    while waiting or running:
        while waiting and len(running) < limit:
            argument = waiting.popleft()
            running[submit(argument)] = argument
        (done,), _ = ray.wait(list(running), num_returns=1)
        try:
            outcome = result(done)
        except Exception as error:
            outcome = error
        yield running.pop(done), outcome


def result(reference: ray.ObjectRef) -> Any:
    """The value of one task.

    Raises:
        AlphafuseError, OSError: as raised in the task, without Ray's traceback around it.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, AlphafuseError | OSError):
            raise error.cause from None
        raise


def reason(error: Exception) -> str:
    """Message on a failure that stops nothing else; the traceback of an unexpected error goes to the log."""
    if isinstance(error, AlphafuseError):
        return str(error)
    traceback.print_exception(error, file=sys.stderr)
    cause = getattr(error, "cause", error)
    return f"{type(cause).__name__}: {cause}"
