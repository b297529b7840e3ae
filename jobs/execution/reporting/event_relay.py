"""Carries events from the workers of a cluster to a listener in the driver's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ray.util.queue import Queue

from alphafuse.events import BatchEmbedded, Event, Listener, StepTaken
from jobs.execution.placement import beside_this_process


class ToDriver:
    """A listener in a worker that sends events to the driver, but for those that come too often to travel."""

    def __init__(self, send: Listener) -> None:
        self._send = send

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepTaken | BatchEmbedded):
            self._send(event)


@contextmanager
def event_queue() -> Iterator[Queue]:
    """A queue for events, on the driver's machine: with any other machine, all later events could be lost."""
    # Ray starts a killed queue again: the events in it are lost, which costs news of progress and no work.
    lives = {"max_restarts": -1, "max_task_retries": -1}
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": beside_this_process(), **lives})
    try:
        yield queue
    finally:
        queue.shutdown(force=True)  # an actor that is asked to end by itself would be started again


class EventRelay:
    """A context in which a thread hands the listener every event that is put into `queue`, on any machine.

    An error of the listener is raised when the block ends, unless another error ended it.
    """

    def __init__(self, listen: Listener, queue: Queue) -> None:
        self._queue = queue
        self._listen = listen
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._pump, daemon=True)

    def __enter__(self) -> EventRelay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _pump(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._listen(event)
            except Exception as error:  # kept for the end of the block; the workers go on
                self._error = self._error or error
