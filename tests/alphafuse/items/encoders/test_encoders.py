"""Encoders against the equations of the paper, and their initial rows."""

from __future__ import annotations

import itertools

import pytest
import torch

from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.encoders.base import INITIALIZATION_BLOCK, ItemEncoder
from alphafuse.items.encoders.id import IdEncoder

X = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
Z = torch.tensor([[0.1, 0.2], [0.3, 0.4]])


def test_add_leaves_the_row_space_and_adds_in_the_null_space() -> None:
    encoder = AlphaFuseEncoder(4, 2, "add", "zeros")
    expected = torch.tensor([[1.0, 2.0, 3.1, 4.2], [5.0, 6.0, 7.3, 8.4]])
    assert torch.equal(encoder(X[:, encoder.frozen.columns], Z), expected)


def test_replace_puts_ids_in_place_of_the_null_space() -> None:
    encoder = AlphaFuseEncoder(4, 2, "replace", "zeros")
    features = X[:, encoder.frozen.columns]
    assert features.shape == (2, 2)
    assert torch.equal(encoder(features, Z), torch.tensor([[1.0, 2.0, 0.1, 0.2], [5.0, 6.0, 0.3, 0.4]]))


def test_id_is_the_identity() -> None:
    encoder = IdEncoder(2, "normal")
    assert encoder.frozen is None
    assert torch.equal(encoder(torch.zeros(2, 0), Z), Z)


@pytest.mark.parametrize("encoder", [AlphaFuseEncoder(4, 2, "add", "normal"), IdEncoder(3, "normal")])
def test_initial_rows_do_not_depend_on_how_they_are_divided(encoder: ItemEncoder) -> None:
    count = 2 * INITIALIZATION_BLOCK + 100
    whole = encoder.initial_rows(0, count, seed=3)
    cuts = [0, 10, INITIALIZATION_BLOCK, INITIALIZATION_BLOCK + 1, count, count]
    parts = [encoder.initial_rows(start, stop, seed=3) for start, stop in itertools.pairwise(cuts)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(encoder.initial_rows(0, count, seed=4), whole)
    assert whole.mean().abs() < 0.02
    assert whole.std() == pytest.approx(1, abs=0.02)


def test_zero_rows() -> None:
    assert torch.equal(AlphaFuseEncoder(4, 2, "add", "zeros").initial_rows(5, 8, seed=0), torch.zeros(3, 2))
