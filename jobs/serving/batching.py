"""Ranks requests together that wait at the same time.

A batch is what has come while the batch before was ranked: a request that comes alone is ranked at once, and under load
batches grow. `ray.serve.batch` cuts its batches by time, whether the batch before has ended or not, so that requests
that come one by one would be ranked one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


class Batches(Generic[Request, Result]):
    """Calls a function with all requests that wait, one call at a time. For one event loop.

    Args:
        function: gives the results of a batch, in its order; what it raises is raised for each request of the batch.
        largest: number of requests in a batch at most.
    """

    def __init__(self, function: Callable[[list[Request]], Awaitable[Sequence[Result]]], largest: int) -> None:
        self._function = function
        self._largest = largest
        self._waiting: list[tuple[Request, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Result:
        """The result of one request."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, result))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
            batch = [(request, result) for request, result in batch if not result.done()]  # without clients that left
            if not batch:
                continue
            try:
                results = await self._function([request for request, _ in batch])
            except Exception as error:
                for _, result in batch:
                    if not result.done():
                        result.set_exception(error)
            else:
                for (_, result), value in zip(batch, results, strict=True):
                    if not result.done():
                        result.set_result(value)
