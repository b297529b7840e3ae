"""Adam on those rows of a table that a step touches.

The table's rows hold value, first and second moment side by side. A GPU sums the gradients of a row and updates the
row in one pass, in which every number is read and written once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alphafuse.kernels.device import runs_kernels

STATE_VALUES = 3
"""Numbers kept for each component of a row: its value, first and second moment."""
BLOCK_ROWS = 1024
"""Rows updated at a time by plain torch: they stay in the second-level cache from the gathering to the writing back."""


@dataclass(frozen=True)
class AdamNumbers:
    """Numbers of one step of Adam (Kingma & Ba 2015, alg. 1) that are the same for all rows.

    Attributes:
        rate: learning rate over 1 − β₁ᵗ, in step t.
        correction: 1 − β₂ᵗ.
        weight_decay: L2 term, added to the gradient.
    """

    rate: float
    correction: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float


def update_rows(state: torch.Tensor, rows: torch.Tensor, gradient: torch.Tensor, adam: AdamNumbers) -> None:
    """Update rows of a table in place.

    Args:
        state: [rows of the table, 3 · dim]; value, first and second moment of each row side by side.
        rows: int64 [touched], different rows.
        gradient: [touched, dim].
    """
    if runs_kernels(state.device):
        from alphafuse.kernels.row_update_triton import launch_row_update

        launch_row_update(state, rows, gradient, None, adam, 1, measured=False)
        return
    for chosen, part in zip(rows.split(BLOCK_ROWS), gradient.split(BLOCK_ROWS), strict=True):
        touched = state.index_select(0, chosen)  # [rows, 3 · dim]
        _step(touched, part, adam)
        state.index_copy_(0, chosen, touched)


def sum_and_update_rows(
    state: torch.Tensor,
    rows: torch.Tensor,
    gradients: torch.Tensor,
    sums: tuple[torch.Tensor, torch.Tensor] | None,
    adam: AdamNumbers,
    divisor: int,
    measured: bool,
) -> torch.Tensor | None:
    """Sum the gradients of each row, divide the sums by `divisor` and update the rows, as `update_rows` does, in one
    pass on a device that runs kernels.

    Args:
        gradients: [gradients, dim].
        sums: int64 [gradients], positions of the gradients, row after row; and int64 [touched], start of each row in
            them. None: there is one gradient for each row, in order.
        measured: compute the square of the norm.

    Returns:
        The square of the norm of the gradient of all rows, a scalar, where it is computed.
    """
    from alphafuse.kernels.row_update_triton import launch_row_update

    return launch_row_update(state, rows, gradients, sums, adam, divisor, measured)


def _step(state: torch.Tensor, gradient: torch.Tensor, adam: AdamNumbers) -> None:
    value, first, second = state.chunk(STATE_VALUES, dim=1)  # [touched, dim] each, views
    if adam.weight_decay:
        gradient = gradient + adam.weight_decay * value
    first.lerp_(gradient, 1 - adam.beta1)
    second.mul_(adam.beta2).addcmul_(gradient, gradient, value=1 - adam.beta2)
    denominator = (second / adam.correction).sqrt_().add_(adam.epsilon)
    value.addcdiv_(first, denominator, value=-adam.rate)
