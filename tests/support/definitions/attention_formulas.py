"""Compares models with a formula that is written out, values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional


def blocks_and_norm(model: Any, inputs: torch.Tensor, block: Callable[..., torch.Tensor]) -> torch.Tensor:
    """States of a model with `blocks` of two heads and a `norm`, by the formula of one block for one history.

    Args:
        inputs: input of the first block, [batch, length, width].
    """
    states = []
    for hidden in inputs:
        for module in model.blocks:
            hidden = block(module, hidden, 2)
        states.append(functional.layer_norm(hidden, hidden.shape[1:], model.norm.weight, model.norm.bias))
    return torch.stack(states)


def assert_equal_with_gradients(found: torch.Tensor, expected: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
    """Assert that two tensors are equal, and the gradients of a weighted sum of each with respect to `inputs`."""
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(found.dtype)
    gradients = [torch.autograd.grad((values * weights).sum(), inputs) for values in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other)
