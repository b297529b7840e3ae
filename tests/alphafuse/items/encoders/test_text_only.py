"""MoRec, WhitenRec and iDreamRec: their inputs, and their dense maps in float64."""

from __future__ import annotations

import math

import pytest
import torch

from alphafuse.items.encoders.base import FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.idreamrec import IDreamRecEncoder
from alphafuse.items.encoders.morec import MoRecEncoder
from alphafuse.items.encoders.text_only import Adapter
from alphafuse.items.encoders.whitenrec import WhitenRecEncoder

EMBEDDINGS = FrozenFeatures("embeddings", slice(0, 6), 40.0)
NOTHING = torch.zeros(5, 0)


def _text() -> torch.Tensor:
    return torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("encoder", [MoRecEncoder(EMBEDDINGS, 3), WhitenRecEncoder(6, 3)], ids=["morec", "whitenrec"])
def test_one_dense_layer_with_gelu(encoder: ItemEncoder) -> None:
    encoder = encoder.double()
    weight, bias = (parameter.detach() for parameter in encoder.parameters())
    text = _text().requires_grad_()
    linear = text @ weight.T + bias
    expected = linear * (1 + torch.erf(linear / math.sqrt(2))) / 2
    vectors = encoder(text, NOTHING)
    torch.testing.assert_close(vectors, expected)
    torch.testing.assert_close(
        torch.autograd.grad(vectors.square().sum(), text), torch.autograd.grad(expected.square().sum(), text)
    )


def test_what_is_read() -> None:
    assert MoRecEncoder(EMBEDDINGS, 3).frozen == EMBEDDINGS
    assert WhitenRecEncoder(6, 3).frozen == FrozenFeatures("features", slice(0, 6))
    assert IDreamRecEncoder(6).frozen == FrozenFeatures("features", slice(0, 6))


def test_idreamrec_is_the_identity_and_trains_nothing() -> None:
    encoder = IDreamRecEncoder(6)
    assert torch.equal(encoder(_text(), NOTHING), _text())
    assert encoder.initial_rows(0, 5, seed=0).shape == (5, 0)
    assert not list(encoder.parameters())


def test_adapters_compute_in_the_precision_of_their_weights() -> None:
    layer = torch.nn.Linear(6, 3).bfloat16()
    text = _text().float()
    assert torch.equal(Adapter(layer)(text), layer(text.bfloat16()).float())
