"""The kernels compile for a GPU, and fit into the shared memory that every GPU gives a program."""

from __future__ import annotations

import pytest
import torch
from support.devices.compiled_kernels import SHARED_BYTES, compile_kernels
from support.processes.multi_process import run_ranks

from alphafuse.items.row_adam import RowAdam
from alphafuse.kernels.counting import Rivals, scores_of_pairs
from alphafuse.kernels.negative_sums import OwnNegatives, log_partition, softplus_sums
from alphafuse.kernels.row_update import sum_and_update_rows, update_rows

LEAST_SHARED_BYTES = 48 << 10
"""Shared memory of a program on every GPU of NVIDIA, without being asked for more."""
ROWS, WIDTH = 70, 128


def _launch_all() -> dict[str, int]:
    numbers, adam = torch.arange(ROWS), RowAdam().next_step(0.1)
    states, vectors = torch.zeros(2, ROWS, WIDTH, requires_grad=True)
    own = OwnNegatives(numbers, numbers, numbers)
    update_rows(torch.zeros(ROWS, 3 * WIDTH), numbers, torch.zeros(ROWS, WIDTH), adam)
    table = torch.zeros(ROWS, 3 * WIDTH)
    sum_and_update_rows(table, numbers, torch.zeros(ROWS, WIDTH), (numbers, numbers), adam, 2, measured=True)
    (log_partition(states, vectors, own, torch.zeros(ROWS)) + softplus_sums(states, vectors, own)[0]).sum().backward()
    hidden = torch.zeros(ROWS, WIDTH)
    Rivals(hidden, hidden, numbers, scores_of_pairs(hidden, numbers, hidden, numbers)).count_better()
    return SHARED_BYTES


@pytest.mark.distributed
def test_every_kernel_compiles_for_a_gpu() -> None:
    shared = run_ranks(1, _launch_all, prepare=compile_kernels)[0]
    assert set(shared) == {"_update_row", "_sum_scores", "_sum_gradient", "_score_pairs", "_count_better"}
    assert max(shared.values()) <= LEAST_SHARED_BYTES
