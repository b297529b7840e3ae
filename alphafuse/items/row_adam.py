"""Settings and step count of the Adam that updates a table's rows.

Time and memory traffic of a step depend on the touched rows alone (`alphafuse.kernels.row_update`). Knows nothing of
ranks or of where rows are kept.
"""

from __future__ import annotations

from alphafuse.kernels.row_update import AdamNumbers


class RowAdam:
    """Row-sparse Adam (Kingma & Ba 2015, alg. 1, applied to touched rows as torch.optim.SparseAdam does).

    A row that a step does not touch keeps its value and its moments; the bias correction counts all steps.

    Args:
        weight_decay: L2 term, added to the gradient of touched rows.

    Attributes:
        steps: number of steps taken.
    """

    def __init__(
        self, *, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        self.steps = 0
        self._betas = betas
        self._epsilon = epsilon
        self._weight_decay = weight_decay

    def next_step(self, learning_rate: float) -> AdamNumbers:
        """Count a step; returns the numbers to update its rows with."""
        self.steps += 1
        beta1, beta2 = self._betas
        rate, correction = learning_rate / (1 - beta1**self.steps), 1 - beta2**self.steps
        return AdamNumbers(rate, correction, beta1, beta2, self._epsilon, self._weight_decay)
