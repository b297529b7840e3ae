"""Runs work in a thread beside the training, one piece at a time, and keeps its error until somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """A thread that does one piece of work at a time. The process waits for it before it ends.

    Args:
        name: name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._work: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before is done; raises its error, if there was one."""
        self.wait()
        self._work = self._thread.submit(work)

    def wait(self) -> None:
        """Wait until nothing is left to do; raises the error of the work, once."""
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def close(self) -> None:
        """Wait until nothing is left to do, whatever became of it, and end the thread."""
        self._thread.shutdown()
