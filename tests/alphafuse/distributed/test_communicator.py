"""Ways that tensors take between ranks that have a device beside the CPU."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from support.devices.pretended_device import OnDevice, pretended_device, register
from support.processes.multi_process import run_ranks

from alphafuse.distributed.communicator import Communicator


def _talk() -> list[Any]:
    """Every collective, with tensors of the device and, where they may be, of the CPU."""
    with pretended_device() as device:
        communicator = Communicator(device)
        own, results = torch.arange(2.0 + communicator.rank), []
        for rows in (own, own.to(device)):
            gathered, counts = communicator.all_gather_rows(rows)
            exchanged = communicator.exchange(rows[:2].clone(), [1, 1], [1, 1])
            largest = communicator.all_reduce(rows[-1:].clone(), "max")
            assert {type(tensor) for tensor in (gathered, exchanged, largest)} == {type(rows)}
            results.append([counts, *(tensor.tolist() for tensor in (gathered, exchanged, largest))])
        assert isinstance(rows, OnDevice)
        assert results[0] == results[1]
        assert communicator.exchange_counts([1, 2]) == [communicator.rank + 1] * 2
        assert communicator.gather_objects(communicator.rank) == [0, 1]
        communicator.barrier()
        for collective in (lambda: dist.all_reduce(own), dist.barrier):  # as NCCL would answer
            with pytest.raises(RuntimeError, match=r"wrong group|went to the device"):
                collective()
        return results[0]


@pytest.mark.distributed
def test_tensors_of_the_cpu_and_of_a_device_travel_each_in_their_group() -> None:
    first, second = run_ranks(2, _talk, prepare=register)
    assert first == [[2, 3], [0.0, 1.0, 0.0, 1.0, 2.0], [0.0, 0.0], [2.0]]
    assert second == [[2, 3], [0.0, 1.0, 0.0, 1.0, 2.0], [1.0, 1.0], [2.0]]


def _threads_of_ways_apart() -> list[int]:
    """Threads of this process after one way apart, and after many."""
    counts = []
    for ways in (1, 20):
        for _ in range(ways):
            apart = Communicator().apart("planning")
            apart.barrier()
        counts.append(psutil.Process().num_threads())
    return counts


@pytest.mark.distributed
def test_the_threads_of_a_process_do_not_grow_with_its_trainings() -> None:
    for once, often in run_ranks(2, _threads_of_ways_apart):
        assert often <= once + 2
