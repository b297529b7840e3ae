"""The collectives that the sharded parts use, over torch.distributed or over a single process.

Owns rank, world size, the shapes that travel and the way that they take: tensors of the device through the default
group, counts, objects and all other tensors of the CPU through one of the CPU, since NCCL moves none of these. Every
rank must call the same methods in the same order. Model code never sees this module. Bytes sent to other ranks are
counted, and the time of collectives is measured.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Literal, TypeVar

import torch
import torch.distributed as dist

from alphafuse.distributed.step_timer import StepTimer

T = TypeVar("T")


@lru_cache(maxsize=2)
def _group_for(purpose: str, default: dist.ProcessGroup, timeout: timedelta | None) -> dist.ProcessGroup:
    """A group of CPUs beside the default one, made once for a purpose: its threads look for messages a hundred times a
    second."""
    return dist.new_group(backend="gloo", timeout=timeout)


class Communicator:
    """All ranks of the default process group, or the one rank of a process without a group.

    Making one is a collective where the device is not the CPU.

    Args:
        device: device whose tensors the default process group moves; None: the CPU.
        timeout: longest time that a collective of CPU tensors beside those of the default group may take; None: torch's
            own limit.

    Attributes:
        timer: gets the time of collectives as the span `exchange`, and the bytes for other ranks as `bytes_sent`.
    """

    def __init__(self, device: torch.device | None = None, timeout: timedelta | None = None) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if grouped else 0
        self.world_size = dist.get_world_size() if grouped else 1
        self.timer = StepTimer()
        # None is the default group: on CPUs one group moves everything.
        beside = self.world_size > 1 and device is not None and device.type != "cpu"
        self._timeout = timeout
        self._cpu_group = dist.new_group(backend="gloo", timeout=timeout) if beside else None

    def timed(self, timer: StepTimer) -> Communicator:
        """Return a communicator of the same ranks that `timer` measures."""
        measured = copy.copy(self)
        measured.timer = timer
        return measured

    def apart(self, purpose: Literal["planning", "checkpoints"]) -> Communicator:
        """Return a communicator of the same ranks for tensors of the CPU, counts and objects alone, whose collectives
        another thread may call while those of this one go on. A collective.

        All of a process share one such way for a purpose: two threads must not use it at a time.
        """
        apart = copy.copy(self)
        apart.timer = StepTimer()
        apart._cpu_group = _group_for(purpose, dist.group.WORLD, self._timeout) if self.world_size > 1 else None
        return apart

    def all_reduce(self, tensor: torch.Tensor, op: Literal["sum", "max"] = "sum") -> torch.Tensor:
        """Reduce `tensor` (same shape on every rank) in place and return it."""
        if self.world_size > 1:
            self.timer.count("bytes_sent", tensor.nbytes)
            with self.timer.span("exchange"):
                reduction = dist.ReduceOp.SUM if op == "sum" else dist.ReduceOp.MAX
                dist.all_reduce(tensor, op=reduction, group=self._group(tensor))
        return tensor

    def all_gather_rows(
        self, tensor: torch.Tensor, counts: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, list[int]]:
        """Concatenate [rows of this rank, …] over the ranks; returns it with the number of rows of each rank.

        Args:
            counts: number of rows of each rank, where it is known; None: the ranks tell one another.
        """
        if self.world_size == 1:
            return tensor, [len(tensor)]
        counts = self._all_counts([len(tensor)])[:, 0].tolist() if counts is None else list(counts)
        padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        gathered = [torch.empty_like(padded) for _ in counts]
        self.timer.count("bytes_sent", padded.nbytes * (self.world_size - 1))
        with self.timer.span("exchange"):
            dist.all_gather(gathered, padded, group=self._group(padded))
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)]), counts

    def exchange_counts(self, counts: Sequence[int]) -> list[int]:
        """Tell rank r that counts[r] rows will come from here; returns how many come from each rank."""
        if self.world_size == 1:
            return list(counts)
        return self._all_counts(counts)[:, self.rank].tolist()

    def exchange(self, rows: torch.Tensor, send: Sequence[int], receive: Sequence[int]) -> torch.Tensor:
        """All-to-all of rows: the first send[0] rows go to rank 0, the next send[1] to rank 1, and so on.

        Returns:
            [sum(receive), …], the rows from rank 0 first.
        """
        if self.world_size == 1:
            return rows
        received = rows.new_empty((sum(receive), *rows.shape[1:]))
        self.timer.count("bytes_sent", (sum(send) - send[self.rank]) * rows[:1].nbytes)
        with self.timer.span("exchange"):
            group = self._group(rows)
            dist.all_to_all_single(received, rows.contiguous(), list(receive), list(send), group=group)
        return received

    def gather_objects(self, value: T) -> list[T]:
        """Return the value of every rank, on every rank; for small values: counters, names, errors."""
        if self.world_size == 1:
            return [value]
        values: list[T] = [value] * self.world_size
        dist.all_gather_object(values, value, group=self._cpu_group)
        return values

    def broadcast_object(self, value: T) -> T:
        """Return the value of rank 0, on every rank."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._cpu_group)
        return values[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            dist.barrier(group=self._cpu_group)

    def _all_counts(self, counts: Sequence[int]) -> torch.Tensor:
        """[world_size, len(counts)]: the counts of every rank, on the CPU, where they are read."""
        mine = torch.tensor(counts, dtype=torch.int64)
        everyone = [torch.empty_like(mine) for _ in range(self.world_size)]
        with self.timer.span("exchange"):
            dist.all_gather(everyone, mine, group=self._cpu_group)
        return torch.stack(everyone)

    def _group(self, tensor: torch.Tensor) -> dist.ProcessGroup | None:
        """The group that moves tensors of this device; None: the default one."""
        return self._cpu_group if tensor.device.type == "cpu" else None
