"""The kernels of sums over negatives, and their gradients, against dense definitions in float64."""

from __future__ import annotations

import pytest
import torch
from support.devices.interpreted_kernels import interpret_kernels
from support.processes.multi_process import run_ranks

from alphafuse.kernels.negative_sums import NOTHING, OwnNegatives, log_partition, softplus_sums

SHAPES = [(1, 1, 1), (3, 0, 4), (70, 150, 5), (130, 64, 140), (0, 5, 3)]
"""Targets, negatives, and columns of the vectors."""


def _case(targets: int, negatives: int, width: int, weighted: bool) -> tuple[torch.Tensor, ...]:
    """States, vectors, log weights, numbers of targets and negatives, and the gradient of the sums."""
    generator = torch.Generator().manual_seed(targets + negatives)
    states, vectors = (torch.randn(count, width, generator=generator) for count in (targets, negatives))
    states *= 30 / width**0.5  # exponentials that would overflow, and many that vanish
    weights = torch.randn(negatives, generator=generator) if weighted else torch.zeros(negatives)
    numbers = [torch.randint(9, (count,), generator=generator) for count in (targets, negatives)]
    return states, vectors, weights, *numbers, torch.randn(targets, generator=generator)


def _own(targets: torch.Tensor, items: torch.Tensor) -> OwnNegatives:
    return OwnNegatives((targets[:, None] == items).flatten().nonzero()[:, 0], targets, items)


def _compute(kind: str, *shape: int) -> list[torch.Tensor]:
    """Sums, counts or nothing, and the gradients of both sides."""
    states, vectors, weights, targets, items, gradient = _case(*shape, weighted=kind == "weighted")
    states.requires_grad_()
    vectors.requires_grad_()
    own = _own(targets, items)
    if kind == "softplus":
        sums, counts = softplus_sums(states, vectors, own)
    else:
        sums, counts = log_partition(states, vectors, own, weights if kind == "weighted" else None), torch.zeros(0)
    sums.backward(gradient)
    assert states.grad is not None
    assert vectors.grad is not None
    return [sums.detach(), counts, states.grad, vectors.grad]


def _define(kind: str, *shape: int) -> list[torch.Tensor]:
    """The same in float64, with the whole matrix of scores."""
    states, vectors, weights, targets, items, gradient = _case(*shape, weighted=kind == "weighted")
    states, vectors = states.double().requires_grad_(), vectors.double().requires_grad_()
    scores, counted = states @ vectors.T + weights, targets[:, None] != items
    if kind == "softplus":
        sums = torch.log1p(scores.clamp(max=50).exp()).where(scores < 50, scores).where(counted, 0).sum(dim=1)
    else:
        sums = torch.cat([scores.masked_fill(~counted, NOTHING), scores.new_full((len(scores), 1), NOTHING)], dim=1)
        sums = sums.logsumexp(dim=1)
    counts = counted.sum(dim=1) if kind == "softplus" else torch.zeros(0)
    (sums + 0 * (states.sum() + vectors.sum())).backward(gradient.double())
    assert states.grad is not None
    assert vectors.grad is not None
    return [sums.detach(), counts, states.grad, vectors.grad]


@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["plain", "weighted", "softplus"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equal_dense_definitions(kind: str, shape: tuple[int, ...]) -> None:
    found = run_ranks(1, _compute, kind, *shape, prepare=interpret_kernels)[0]
    for one, expected in zip(found, _define(kind, *shape), strict=True):
        torch.testing.assert_close(one.double(), expected.double(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", ["plain", "weighted", "softplus"])
def test_plain_torch_equals_them_too(kind: str) -> None:
    for one, expected in zip(_compute(kind, 70, 150, 5), _define(kind, 70, 150, 5), strict=True):
        torch.testing.assert_close(one.double(), expected.double(), rtol=2e-4, atol=2e-4)


def _most_saved(targets: int, negatives: int) -> int:
    """Number of values of the largest tensor that is kept for the backward pass, or comes out of it."""
    states, vectors, _, numbers, items, _ = _case(targets, negatives, 4, weighted=False)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: sizes.append(kept.numel()) or kept, lambda kept: kept):
        log_partition(states.requires_grad_(), vectors, OwnNegatives(torch.zeros(0).long(), numbers, items))
    return max(sizes)


@pytest.mark.distributed
def test_no_matrix_of_scores_is_kept() -> None:
    assert run_ranks(1, _most_saved, 100, 300, prepare=interpret_kernels)[0] == 300 * 4
