"""The sharded full softmax against torch's dense cross entropy in float64."""

from __future__ import annotations

import pytest
import torch
from multi_process import run_ranks
from torch.nn import functional

from alphafuse.collectives import Communicator
from alphafuse.items.partition import RowPartition
from alphafuse.losses.softmax import sharded_softmax

ITEMS, DIM, TEMPERATURE = 17, 4, 0.3


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = 3 * torch.randn(7, DIM, generator=generator)
    return hidden, torch.randn(ITEMS, DIM, generator=generator), torch.tensor([0, 16, 3, 3, 9, 8, 12])


def _sharded(queries: list[list[int]], block_bytes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    communicator = Communicator()
    hidden, vectors, targets = _inputs()
    own = queries[communicator.rank]
    start, stop = RowPartition(ITEMS, communicator.world_size).range(communicator.rank)
    mine = hidden[own].clone().requires_grad_()
    shard = vectors[start:stop].clone().requires_grad_()
    positive = (mine * vectors[targets[own]]).sum(dim=1) / TEMPERATURE
    loss = sharded_softmax(mine, positive, shard, TEMPERATURE, communicator, block_bytes)
    loss.backward()
    return loss.detach(), mine.grad, shard.grad


@pytest.mark.distributed
@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize(
    "queries", [[[0, 1, 2, 3, 4, 5, 6]], [[0, 1, 2], [3, 4, 5, 6]], [[0, 1, 2, 3, 4, 5], [], [6]]], ids=len
)
def test_equals_dense_cross_entropy(queries: list[list[int]], block_bytes: int) -> None:
    results = run_ranks(len(queries), _sharded, queries, block_bytes)

    hidden, vectors, targets = _inputs()
    hidden = hidden.double().requires_grad_()
    negatives = vectors.double().requires_grad_()  # the gradient that reaches items through the partition sum
    positive = (hidden * vectors[targets].double()).sum(dim=1) / TEMPERATURE
    losses = (hidden @ negatives.T / TEMPERATURE).logsumexp(dim=1) - positive
    expected = functional.cross_entropy(hidden.detach() @ vectors.double().T / TEMPERATURE, targets, reduction="none")
    torch.testing.assert_close(losses.detach(), expected)
    losses.sum().backward()

    for own, (loss, hidden_gradient, _) in zip(queries, results, strict=True):
        torch.testing.assert_close(loss.double(), expected[own].sum(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(hidden_gradient.double(), hidden.grad[own], rtol=1e-4, atol=1e-5)
    items = torch.cat([gradient for _, _, gradient in results])
    torch.testing.assert_close(items.double(), negatives.grad, rtol=1e-4, atol=1e-5)
