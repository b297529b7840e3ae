"""The ablations of AlphaFuse: by hand with a basis of unit vectors, and against projections written out in float64."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch

from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.encoders.alphafuse_euclidean import EuclideanAlphaFuseEncoder

FUSIONS = ("add", "replace")
Fusion = Literal["add", "replace"]
Space = Literal["singular", "euclidean"]


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def _orthonormal(dim: int, columns: int) -> torch.Tensor:
    return torch.linalg.qr(_random(dim, columns))[0]


def _euclidean(basis: torch.Tensor, id_space: Space, fusion: Fusion) -> EuclideanAlphaFuseEncoder:
    return EuclideanAlphaFuseEncoder(basis, torch.zeros(len(basis)), 1.0, id_space, fusion, "zeros").double()


@pytest.mark.parametrize(
    ("id_space", "fusion", "ids", "expected"),
    [
        # The null space is spanned by the third and the first axis of three.
        ("singular", "add", [10.0, 20.0], [21.0, 2.0, 13.0]),
        ("singular", "replace", [10.0, 20.0], [20.0, 2.0, 10.0]),
        ("euclidean", "add", [10.0, 20.0, 30.0], [11.0, 2.0, 33.0]),
        ("euclidean", "replace", [10.0, 20.0, 30.0], [10.0, 2.0, 30.0]),
    ],
)
def test_by_hand(id_space: Space, fusion: Fusion, ids: list[float], expected: list[float]) -> None:
    basis = torch.eye(3)[:, [2, 0]]
    encoder = EuclideanAlphaFuseEncoder(basis, torch.zeros(3), 1.0, id_space, fusion, "zeros")
    assert encoder.trainable_dim == len(ids)
    assert torch.equal(encoder(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([ids])), torch.tensor([expected]))


@pytest.mark.parametrize(("id_space", "fusion"), itertools.product(("singular", "euclidean"), FUSIONS))
def test_euclidean_injection_equals_its_projections(id_space: Space, fusion: Fusion) -> None:
    basis = _orthonormal(6, 2)
    text, ids = _random(5, 6), _random(5, 2 if id_space == "singular" else 6).requires_grad_()
    projection = basis @ basis.T  # onto the null space
    for item, vector in enumerate(_euclidean(basis, id_space, fusion)(text, ids)):
        kept = text[item] - projection @ text[item] if fusion == "replace" else text[item]
        torch.testing.assert_close(vector, kept + (basis if id_space == "singular" else projection) @ ids[item])
    weights = _random(5, 6)
    (gradient,) = torch.autograd.grad((_euclidean(basis, id_space, fusion)(text, ids) * weights).sum(), ids)
    torch.testing.assert_close(gradient, weights @ (basis if id_space == "singular" else projection))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_euclidean_ids_injected_in_the_singular_space(fusion: Fusion) -> None:
    basis = _orthonormal(6, 2)
    encoder = AlphaFuseEncoder(4, 2, fusion, "zeros", basis).double()
    text, ids = _random(5, 4), _random(5, 6).requires_grad_()
    assert encoder.trainable_dim == 6
    expected = text.clone()
    expected[:, 2:] = ids @ basis + (expected[:, 2:] if fusion == "add" else 0)
    vectors = encoder(text[:, encoder.frozen.columns], ids)
    torch.testing.assert_close(vectors, expected)
    weights = _random(5, 4)
    (gradient,) = torch.autograd.grad((vectors * weights).sum(), ids)
    torch.testing.assert_close(gradient, weights[:, 2:] @ basis.T)
