"""The kernel of the row update against sums and Adam in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.devices.interpreted_kernels import interpret_kernels
from support.processes.multi_process import run_ranks

from alphafuse.items.row_adam import RowAdam
from alphafuse.items.row_sums import RowSums, group_equal
from alphafuse.kernels.row_update import sum_and_update_rows, update_rows

NUM_ROWS, FEATURES, STEPS, RATE, DECAY, RANKS = 9, 3, 3, 0.05, 0.02, 3


def _gradients(dim: int) -> list[tuple[np.ndarray, torch.Tensor]]:
    """Rows of the gradients of each step, some often and some never, and the gradients [gradients, dim]."""
    generator = np.random.default_rng(dim)
    touched = [np.array([4, 1, 4, 8, 4, 1]), np.array([0, 3]), np.array([7])]
    return [(rows, torch.from_numpy(generator.standard_normal((len(rows), dim))).float()) for rows in touched]


def _records(dim: int) -> torch.Tensor:
    return torch.randn(NUM_ROWS, FEATURES + 3 * dim, generator=torch.Generator().manual_seed(1)).abs()


def _by_kernel(dim: int, summed: bool) -> tuple[torch.Tensor, list[float]]:
    """Records after some steps, and squares of the gradients' norms."""
    records, adam, squares = _records(dim), RowAdam(weight_decay=DECAY), []
    state = records[:, FEATURES:]
    for rows, gradient in _gradients(dim):
        groups = group_equal(rows)
        numbers, sums = adam.next_step(RATE), RowSums.of(groups)
        touched = torch.from_numpy(groups.values)
        if summed:
            update_rows(state, touched, sums(gradient) / RANKS, numbers)
        else:
            planned = None if len(rows) == len(touched) == 1 else (sums.order, sums.starts)
            square = sum_and_update_rows(state, touched, gradient, planned, numbers, RANKS, measured=True)
            assert square is not None
            squares.append(float(square))
            assert sum_and_update_rows(state, touched[:0], gradient[:0], None, numbers, 1, measured=False) is None
    return records, squares


@pytest.mark.distributed
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("dim", [1, 5, 64, 130])
def test_sums_gradients_and_updates_touched_rows_alone(dim: int, summed: bool) -> None:
    records, squares = run_ranks(1, _by_kernel, dim, summed, prepare=interpret_kernels)[0]
    expected, norms = _records(dim).double(), []
    state = expected[:, FEATURES:].view(NUM_ROWS, 3, dim)
    for step, (rows, gradients) in enumerate(_gradients(dim), 1):
        square = 0.0
        for row in set(rows.tolist()):
            value, first, second = state[row]
            gradient = gradients.double()[torch.from_numpy(rows == row)].sum(dim=0) / RANKS
            square += float(gradient.square().sum())
            gradient = gradient + DECAY * value
            first.copy_(0.9 * first + 0.1 * gradient)
            second.copy_(0.999 * second + 0.001 * gradient**2)
            value -= RATE * first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        norms.append(square)
    torch.testing.assert_close(records.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(records[[2, 5, 6]], _records(dim)[[2, 5, 6]])
    if not summed:
        assert squares == pytest.approx(norms, rel=1e-5)
