"""Partition sums over sharded items, and their losses, against torch's dense definitions in float64."""

from __future__ import annotations

import pytest
import torch
from support.processes.multi_process import run_ranks
from torch.nn import functional

from alphafuse.distributed.communicator import Communicator
from alphafuse.items.item_table import ItemTable, Rows
from alphafuse.items.row_adam import RowAdam
from alphafuse.kernels.negative_sums import NOTHING
from alphafuse.losses.log_partition import sharded_log_partition

ITEMS, DIM = 17, 4
QUERIES = [[[0, 1, 2, 3, 4, 5, 6]], [[0, 1, 2], [3, 4, 5, 6]], [[0, 1, 2, 3, 4, 5], [], [6]]]


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = 3 * torch.randn(7, DIM, generator=generator)
    return hidden, torch.randn(ITEMS, DIM, generator=generator), torch.tensor([0, 16, 3, 3, 9, 8, 12])


def _sharded(
    queries: list[list[int]], items: list[int], block_rows: int, mask: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log partitions of this rank's queries over `items`, and the gradients of their sum over all ranks."""
    communicator = Communicator()
    hidden, vectors, targets = _inputs()
    table = ItemTable(ITEMS, 0, DIM, RowAdam(), communicator)
    first, count = table.first_row, len(table.trainable)
    table.trainable.copy_(vectors[first : first + count])
    own = [item - first for item in items if first <= item < first + count]
    numbers = [torch.tensor(own[at : at + block_rows]) for at in range(0, len(own), block_rows)]
    blocks = [(rows, table.local_rows(rows)) for rows in numbers]
    order = [query for queries_of_rank in queries for query in queries_of_rank]

    def block_partition(everyone: torch.Tensor, block: tuple[torch.Tensor, Rows]) -> torch.Tensor:
        numbers, rows = block
        logits = everyone @ rows.trainable.T
        if mask:
            logits = logits.masked_fill((numbers + first) == targets[order][:, None], NOTHING)
        return logits.logsumexp(dim=1)

    mine = hidden[queries[communicator.rank]].clone().requires_grad_()
    partition = sharded_log_partition(mine, blocks, block_partition, [len(own) for own in queries], communicator)
    partition.sum().backward()
    gradient = torch.zeros(count, DIM)
    for rows, block in blocks:
        gradient.index_add_(0, rows, block.trainable.grad)
    return partition.detach(), mine.grad, gradient


@pytest.mark.distributed
@pytest.mark.parametrize(("block_rows", "mask"), [(1, False), (5, True), (100, False), (100, True)])
@pytest.mark.parametrize("items", [list(range(ITEMS)), [3, 3, 16, 0, 9, 3, 2], [1]], ids=["all", "repeated", "one"])
@pytest.mark.parametrize("queries", QUERIES, ids=len)
def test_equals_dense_log_sum_exp(queries: list[list[int]], items: list[int], block_rows: int, mask: bool) -> None:
    results = run_ranks(len(queries), _sharded, queries, items, block_rows, mask)

    hidden, vectors, targets = _inputs()
    hidden, vectors = hidden.double().requires_grad_(), vectors.double().requires_grad_()
    logits = hidden @ vectors[items].T
    if mask:
        logits = logits.masked_fill(torch.tensor(items) == targets[:, None], NOTHING)
    expected = logits.logsumexp(dim=1)
    expected.sum().backward()
    for own, (partition, hidden_gradient, _) in zip(queries, results, strict=True):
        torch.testing.assert_close(partition.double(), expected.detach()[own], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(hidden_gradient.double(), hidden.grad[own], rtol=1e-4, atol=1e-5)
    gradients = torch.cat([gradient for _, _, gradient in results])
    torch.testing.assert_close(gradients.double(), vectors.grad, rtol=1e-4, atol=1e-5)


def test_softmax_equals_cross_entropy() -> None:
    hidden, vectors, targets = _inputs()
    (partition, _, _) = _sharded([list(range(7))], list(range(ITEMS)), 5, mask=False)
    losses = partition - (hidden * vectors[targets]).sum(dim=1)
    expected = functional.cross_entropy(hidden.double() @ vectors.double().T, targets, reduction="none")
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)


def test_dropout_is_repeated_when_scores_are_computed_again() -> None:
    hidden, vectors, _ = _inputs()
    table = ItemTable(ITEMS, 0, DIM, RowAdam(), Communicator())
    table.trainable.copy_(vectors)
    gradients = []
    for partition in (
        lambda block: sharded_log_partition(hidden, [block], _with_dropout, [len(hidden)], Communicator()),
        lambda block: _with_dropout(hidden, block),
    ):
        block = table.local_block(0, ITEMS)
        torch.manual_seed(1)
        partition(block).sum().backward()
        gradients.append(block.trainable.grad)
    torch.testing.assert_close(*gradients)


def _with_dropout(everyone: torch.Tensor, block: Rows) -> torch.Tensor:
    return (everyone @ functional.dropout(block.trainable).T).logsumexp(dim=1)
