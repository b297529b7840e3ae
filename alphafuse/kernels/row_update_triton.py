"""The kernel of `row_update`: sums the gradients of a row and takes its step of Adam, one program a row.

A row's gradients are added one after the other, in the order that the host has planned, so that the result is equal to
the last bit whenever it is repeated.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from alphafuse.kernels.row_update import AdamNumbers

WARP_COLUMNS = 128
"""Number of columns for each warp of a program: four for each of its threads."""


def launch_row_update(
    state: torch.Tensor,
    rows: torch.Tensor,
    gradients: torch.Tensor,
    sums: tuple[torch.Tensor, torch.Tensor] | None,
    adam: AdamNumbers,
    divisor: int,
    measured: bool,
) -> torch.Tensor | None:
    """See `row_update.sum_and_update_rows`."""
    squares = gradients.new_empty(len(rows)) if measured else None  # [touched]
    order, starts = (None, None) if sums is None else sums
    if len(rows) and gradients.shape[1]:
        dim = gradients.shape[1]
        columns = triton.next_power_of_2(dim)
        _update_row[(len(rows),)](
            *(state, rows, gradients.contiguous(), order, starts, squares, state.stride(0), dim, len(gradients)),
            *(len(rows), float(divisor), adam.rate, adam.correction, adam.beta1, adam.beta2, adam.epsilon),
            adam.weight_decay,
            COLUMNS=columns,
            num_warps=min(8, max(1, columns // WARP_COLUMNS)),
            enable_fp_fusion=True,
        )
    elif squares is not None:
        squares.zero_()
    return None if squares is None else squares.sum()


@triton.jit(do_not_specialize=["num_gradients", "num_rows"])
def _update_row(
    state: tl.tensor,
    rows: tl.tensor,
    gradients: tl.tensor,
    order: tl.tensor,
    starts: tl.tensor,
    squares: tl.tensor,
    stride: tl.tensor,
    dim: tl.tensor,
    num_gradients: tl.tensor,
    num_rows: tl.tensor,
    divisor: tl.tensor,
    rate: tl.tensor,
    correction: tl.tensor,
    beta1: tl.tensor,
    beta2: tl.tensor,
    epsilon: tl.tensor,
    weight_decay: tl.tensor,
    COLUMNS: tl.constexpr,
) -> None:
    number = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    inside = column < dim
    if order is None:
        gradient = tl.load(gradients + number.to(tl.int64) * dim + column, mask=inside, other=0.0)
    else:
        gradient = tl.zeros([COLUMNS], tl.float32)
        first = tl.load(starts + number)
        stop = tl.load(starts + number + 1, mask=number + 1 < num_rows, other=num_gradients)
        for place in range(first, stop):
            gradient += tl.load(gradients + tl.load(order + place) * dim + column, mask=inside, other=0.0)
    gradient = gradient / divisor
    if squares is not None:
        tl.store(squares + number, tl.sum(gradient * gradient))
    record = state + tl.load(rows + number) * stride + column
    value = tl.load(record, mask=inside, other=0.0)
    first_moment = tl.load(record + dim, mask=inside, other=0.0)
    second_moment = tl.load(record + 2 * dim, mask=inside, other=0.0)
    gradient += weight_decay * value
    first_moment += (1 - beta1) * (gradient - first_moment)
    second_moment = beta2 * second_moment + (1 - beta2) * gradient * gradient
    value -= rate * first_moment / (tl.sqrt(second_moment / correction) + epsilon)
    tl.store(record, value, mask=inside)
    tl.store(record + dim, first_moment, mask=inside)
    tl.store(record + 2 * dim, second_moment, mask=inside)
