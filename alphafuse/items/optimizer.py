"""Adam on the rows that a step touches, with the moments beside the rows.

Time and memory traffic of a step depend on the touched rows alone. Knows nothing of ranks.
"""

from __future__ import annotations

import torch


class RowAdam:
    """Row-sparse Adam (Kingma & Ba 2015, alg. 1, applied to touched rows as torch.optim.SparseAdam does).

    A row that a step does not touch keeps its value and its moments; the bias correction counts all steps.

    Args:
        shape: [rows, dim] of the parameter.
        weight_decay: L2 term, added to the gradient of touched rows.
    """

    def __init__(
        self,
        shape: torch.Size | tuple[int, int],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.first_moment = torch.zeros(shape, device=device)
        self.second_moment = torch.zeros(shape, device=device)
        self.steps = 0
        self._betas = betas
        self._epsilon = epsilon
        self._weight_decay = weight_decay

    def step(self, parameter: torch.Tensor, rows: torch.Tensor, gradient: torch.Tensor, learning_rate: float) -> None:
        """Update `parameter` [rows, dim] in place.

        Args:
            rows: [touched], distinct row numbers.
            gradient: [touched, dim].
        """
        self.steps += 1
        beta1, beta2 = self._betas
        value = parameter[rows]
        if self._weight_decay:
            gradient = gradient + self._weight_decay * value
        first = self.first_moment[rows].lerp_(gradient, 1 - beta1)
        second = self.second_moment[rows].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        self.first_moment[rows] = first
        self.second_moment[rows] = second
        denominator = (second / (1 - beta2**self.steps)).sqrt_().add_(self._epsilon)
        parameter[rows] = value.addcdiv_(first, denominator, value=-learning_rate / (1 - beta1**self.steps))
