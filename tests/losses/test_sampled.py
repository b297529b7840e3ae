"""Sampled losses against their written-out definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from alphafuse.losses.sampled import binary_cross_entropy, infonce

POSITIVE = torch.tensor([1.0, -2.0])
NEGATIVE = torch.tensor([[0.5, 0.0, -1.0], [3.0, -math.inf, 1.0]])


def test_infonce() -> None:
    expected = -math.log(math.e**1 / (math.e**1 + math.e**0.5 + 1 + math.e**-1)) - math.log(
        math.e**-2 / (math.e**-2 + math.e**3 + math.e)
    )
    assert infonce(POSITIVE, NEGATIVE).item() == pytest.approx(expected, rel=1e-6)


def test_binary_cross_entropy() -> None:
    def log_sigmoid(x: float) -> float:
        return -math.log(1 + math.exp(-x))

    first = -log_sigmoid(1.0) - (log_sigmoid(-0.5) + log_sigmoid(0.0) + log_sigmoid(1.0)) / 3
    second = -log_sigmoid(-2.0) - (log_sigmoid(-3.0) + log_sigmoid(-1.0)) / 2
    assert binary_cross_entropy(POSITIVE, NEGATIVE).item() == pytest.approx(first + second, rel=1e-6)


@pytest.mark.parametrize("loss", [infonce, binary_cross_entropy])
def test_gradients_are_finite_where_negatives_do_not_count(loss: Callable) -> None:
    positive, negative = POSITIVE.clone().requires_grad_(), NEGATIVE.clone().requires_grad_()
    loss(positive, negative).backward()
    assert torch.isfinite(positive.grad).all()
    assert torch.isfinite(negative.grad).all()
    assert negative.grad[1, 1] == 0
