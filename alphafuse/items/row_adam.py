"""Adam on the rows that a step touches.

Time and memory traffic of a step depend on the touched rows alone. Knows nothing of ranks or of where rows are kept.
"""

from __future__ import annotations

import torch

STATE_VALUES = 3
"""Numbers kept for each component of a row: its value, first and second moment."""


class RowAdam:
    """Row-sparse Adam (Kingma & Ba 2015, alg. 1, applied to touched rows as torch.optim.SparseAdam does).

    A row that a step does not touch keeps its value and its moments; the bias correction counts all steps.

    Args:
        weight_decay: L2 term, added to the gradient of touched rows.

    Attributes:
        steps: number of steps, with the present one; the caller counts a step before it updates.
    """

    def __init__(
        self, *, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        self.steps = 0
        self._betas = betas
        self._epsilon = epsilon
        self._weight_decay = weight_decay

    def update(self, state: torch.Tensor, gradient: torch.Tensor, learning_rate: float) -> None:
        """Update touched rows in place. A step may take several calls.

        Args:
            state: [touched, 3 · dim]; value, first and second moment of each row side by side.
            gradient: [touched, dim].
        """
        beta1, beta2 = self._betas
        value, first, second = state.chunk(STATE_VALUES, dim=1)  # [touched, dim] each, views
        if self._weight_decay:
            gradient = gradient + self._weight_decay * value
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (second / (1 - beta2**self.steps)).sqrt_().add_(self._epsilon)
        value.addcdiv_(first, denominator, value=-learning_rate / (1 - beta1**self.steps))
