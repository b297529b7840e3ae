"""What models are compared with: values and gradients of a formula that is written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional


def blocks_and_norm(model: Any, inputs: torch.Tensor, block: Callable[..., torch.Tensor]) -> torch.Tensor:
    """States of a model with `blocks` of two heads and a `norm`, by the formula of one block for one history.

    Args:
        inputs: [batch, length, width], what the first block gets.
    """
    states = []
    for hidden in inputs:
        for module in model.blocks:
            hidden = block(module, hidden, 2)
        states.append(functional.layer_norm(hidden, hidden.shape[1:], model.norm.weight, model.norm.bias))
    return torch.stack(states)


def assert_equal_with_gradients(found: torch.Tensor, expected: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
    """Both are equal, and so are the gradients with respect to the inputs of a weighted sum of either."""
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(found.dtype)
    gradients = [torch.autograd.grad((values * weights).sum(), inputs) for values in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other)
