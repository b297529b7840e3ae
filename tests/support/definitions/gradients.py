"""Compares values with an independent definition, gradients included."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def assert_same(found: torch.Tensor, expected: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
    """Assert that the values are equal, and the gradients of a function of them with respect to all `inputs`. None of
    the gradients may be zero throughout."""
    torch.testing.assert_close(found, expected)
    of_found, of_expected = (
        torch.autograd.grad(values.pow(3).sum(), inputs, retain_graph=True) for values in (found, expected)
    )
    torch.testing.assert_close(of_found, of_expected)
    assert all(gradient.any() for gradient in of_found)
