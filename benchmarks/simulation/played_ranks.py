"""Plays the ranks of a group in one process: threads that take turns, so that one of them computes at a time.

The ranks use the project's `Communicator` as it is: it counts what they send. What it finds in the place of
torch.distributed hands tensors over in memory. Tensors of the meta device have shapes alone, so that rows of any number
can be exchanged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import torch

T = TypeVar("T")


class PlayedGroup:
    """The part of torch.distributed that `Communicator` uses, for ranks that are threads of this process.

    Args:
        world_size: number of ranks.
    """

    ReduceOp = torch.distributed.ReduceOp
    group = torch.distributed.group

    def __init__(self, world_size: int) -> None:
        self.turn = threading.Condition()
        """Held by the rank that computes."""
        self.failed = False
        self._world_size = world_size
        self._rank = threading.local()
        self._given: dict[int, Any] = {}
        self._everyones: list[Any] = []
        self._meeting = 0

    def enter(self, rank: int) -> None:
        """Make this thread a rank."""
        self._rank.number = rank

    def meet(self, value: T) -> list[T]:
        """Give a value, and wait for those of all ranks, which are returned in the order of the ranks.

        Raises:
            RuntimeError: another rank has failed.
        """
        meeting = self._meeting
        self._given[self.get_rank()] = value
        if len(self._given) == self._world_size:
            self._everyones = [self._given[rank] for rank in range(self._world_size)]
            self._given, self._meeting = {}, meeting + 1
            self.turn.notify_all()
        self.turn.wait_for(lambda: self._meeting > meeting or self.failed)
        if self._meeting == meeting:
            raise RuntimeError("another rank has failed")
        return self._everyones

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def get_rank(self) -> int:
        rank: int = self._rank.number
        return rank

    def get_world_size(self) -> int:
        return self._world_size

    def new_group(self, **_: Any) -> None:
        """Every group is this one."""

    def barrier(self, group: None = None) -> None:
        self.meet(None)

    def all_reduce(self, tensor: torch.Tensor, op: Any, group: None = None) -> None:
        everyones = torch.stack(self.meet(tensor.clone()))
        tensor.copy_(everyones.sum(0) if op == self.ReduceOp.SUM else everyones.amax(0))

    def all_gather(self, gathered: Sequence[torch.Tensor], tensor: torch.Tensor, group: None = None) -> None:
        for target, part in zip(gathered, self.meet(tensor.clone()), strict=True):
            target.copy_(part)

    def all_to_all_single(
        self, received: torch.Tensor, rows: torch.Tensor, receive: list[int], send: list[int], group: None = None
    ) -> None:
        parts = [theirs[self.get_rank()] for theirs in self.meet(rows.split(send))]
        assert [len(part) for part in parts] == receive
        torch.cat(parts, out=received)

    def all_gather_object(self, values: list[Any], value: Any, group: None = None) -> None:
        values[:] = self.meet(value)


def play(world_size: int, function: Callable[[int], T]) -> list[T]:
    """Call `function(rank)` for every rank of a group; returns the results in the order of the ranks.

    Raises:
        Exception: as raised by the first rank that failed.
    """
    played, results, errors = PlayedGroup(world_size), dict[int, T](), list[Exception]()

    def run(rank: int) -> None:
        played.enter(rank)
        with played.turn:
            try:
                results[rank] = function(rank)
            except Exception as error:
                errors.append(error)
                played.failed = True
                played.turn.notify_all()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    with _in_place_of_torch(played):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(world_size)]


@contextmanager
def _in_place_of_torch(played: PlayedGroup) -> Iterator[None]:
    with patch("alphafuse.distributed.communicator.dist", played):
        yield
