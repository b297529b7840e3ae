"""What models are compared with: values and gradients of a formula that is written out."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def assert_equal_with_gradients(found: torch.Tensor, expected: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
    """Both are equal, and so are the gradients with respect to the inputs of a weighted sum of either."""
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(found.dtype)
    gradients = [torch.autograd.grad((values * weights).sum(), inputs) for values in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other)
