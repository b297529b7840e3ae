"""Sampled losses against their written-out definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from alphafuse.losses.sampled import binary_cross_entropy, calibrated_weight, infonce, log_weights

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


def test_gbce() -> None:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    weight = calibrated_weight(0.75, num_negatives=3, num_items=13)  # sampling rate 1/4
    assert weight == pytest.approx(0.25 * (0.75 * (1 - 4) + 4))
    first = weight * math.log(sigmoid(1)) + sum(math.log(1 - sigmoid(x)) for x in (0.5, 0.0, -1.0))
    second = weight * math.log(sigmoid(-2)) + sum(math.log(1 - sigmoid(x)) for x in (3.0, 1.0))
    expected = -first / 4 - second / 3
    assert binary_cross_entropy(POSITIVE, NEGATIVE, weight).item() == pytest.approx(expected, rel=1e-6)
    assert calibrated_weight(0.0, 3, 13) == pytest.approx(1)
    assert calibrated_weight(1.0, 3, 13) == pytest.approx(0.25)


LOGITS = torch.tensor([0.3, 2.0, -1.0, 0.7, 1.1, -0.4], dtype=torch.float64)
FREQUENCY = torch.tensor([0.4, 0.2, 0.05, 0.05, 0.1, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("frequency", [None, FREQUENCY], ids=["uniform", "by popularity"])
def test_weighted_negatives_estimate_the_partition_sum_without_bias(frequency: torch.Tensor | None) -> None:
    """The expectation over all draws of one negative, written out; a negative that equals the target does not count."""
    target, drawn = 1, torch.arange(6)
    probability = torch.full((6,), 1 / 6, dtype=torch.float64) if frequency is None else frequency
    weight = log_weights(1, 6, frequency, estimate_softmax=True)
    estimates = LOGITS[target].exp() + torch.where(drawn == target, 0, (LOGITS + weight).exp())
    assert float((probability * estimates).sum()) == pytest.approx(float(LOGITS.exp().sum()))


@pytest.mark.parametrize("frequency", [None, FREQUENCY], ids=["uniform", "by popularity"])
def test_gradient_approaches_that_of_the_softmax(frequency: torch.Tensor | None) -> None:
    target, count = 1, 200_000
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(torch.ones(6) if frequency is None else frequency, count, True, generator=generator)
    weight = log_weights(count, 6, None if frequency is None else frequency[drawn], estimate_softmax=True)
    scores = LOGITS.clone().requires_grad_()
    negative = (scores[drawn] + weight).masked_fill(drawn == target, -torch.inf)
    infonce(scores[[target]], negative[None]).backward()
    expected = LOGITS.softmax(dim=0) - torch.eye(6)[target]
    torch.testing.assert_close(scores.grad, expected, rtol=0, atol=2e-3)


def test_infonce_corrects_the_proposal_alone() -> None:
    """Uniform negatives have weight 1, as in the paper; those drawn by popularity have weight 1 on average."""
    assert log_weights(64, 1000, None, estimate_softmax=False) == 0
    weights = log_weights(64, 6, FREQUENCY, estimate_softmax=False)
    assert float((FREQUENCY * weights.exp()).sum()) == pytest.approx(1)
    torch.testing.assert_close(weights.exp(), 1 / (6 * FREQUENCY))


@pytest.mark.parametrize("loss", [infonce, binary_cross_entropy])
def test_gradients_are_finite_where_negatives_do_not_count(loss: Callable) -> None:
    positive, negative = POSITIVE.clone().requires_grad_(), NEGATIVE.clone().requires_grad_()
    loss(positive, negative).backward()
    assert torch.isfinite(positive.grad).all()
    assert torch.isfinite(negative.grad).all()
    assert negative.grad[1, 1] == 0
