"""Cosines and their written backward passes against what autograd composes in float64."""

from __future__ import annotations

import torch
from torch.nn import functional

from alphafuse.losses.cosines import unit_scores, unit_vectors


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def test_unit_vectors() -> None:
    vectors = _vectors(6, 4)
    vectors[2] = 0
    vectors.requires_grad_()
    assert torch.equal(unit_vectors(vectors), functional.normalize(vectors, dim=1))
    weights = _vectors(6, 4)
    (found,) = torch.autograd.grad((weights * unit_vectors(vectors)).sum(), vectors)
    (expected,) = torch.autograd.grad((weights * functional.normalize(vectors, dim=1)).sum(), vectors)
    torch.testing.assert_close(found, expected)


def test_unit_scores() -> None:
    vectors, queries = _vectors(3, 5, 4).requires_grad_(), _vectors(3, 4).requires_grad_()
    expected = (functional.normalize(vectors, dim=2) @ queries[:, :, None]).squeeze(2)
    torch.testing.assert_close(unit_scores(vectors, queries), expected)
    assert torch.autograd.gradcheck(unit_scores, (vectors, queries))
