"""The partitioned item table against one dense table in one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.processes.multi_process import run_ranks

from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.items.item_table import ItemTable
from alphafuse.items.lookup_plan import plan_update
from alphafuse.items.row_adam import RowAdam
from alphafuse.kernels.row_update import update_rows

NUM_ITEMS, FEATURE_DIM, TRAINABLE_DIM = 23, 5, 3
RATE, DECAY = 0.05, 0.01


def _dense() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(NUM_ITEMS, FEATURE_DIM, generator=generator), torch.randn(
        NUM_ITEMS, TRAINABLE_DIM, generator=generator
    )


def _table(communicator: Communicator) -> ItemTable:
    features, trainable = _dense()
    table = ItemTable(NUM_ITEMS, FEATURE_DIM, TRAINABLE_DIM, RowAdam(weight_decay=DECAY), communicator)
    start, stop = RowPartition(NUM_ITEMS, communicator.world_size).range(communicator.rank)
    table.features.copy_(features[start:stop])
    table.trainable.copy_(trainable[start:stop])
    return table


def _weights(step: int, rank: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(count, FEATURE_DIM + TRAINABLE_DIM, generator=generator)


def _loss(vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """A loss that is not linear in the rows, so that a wrong row would show in the gradient."""
    return (weights * vectors.tanh()).sum()


def _train(requests: list[list[list[int]]], max_grad_norm: float | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Train on the item indices `requests[step][rank]`; returns this rank's rows and the vectors that it looked up."""
    communicator = Communicator()
    table = _table(communicator)
    looked_up = []
    for step, of_ranks in enumerate(requests):
        items = np.array(of_ranks[communicator.rank], np.int64)
        plan = table.plan(items)
        rows = table.lookup(plan)
        gathered = rows.gather(torch.cat([rows.features, rows.trainable], dim=1))
        vectors = torch.where(torch.from_numpy(items >= 0)[:, None], gathered, 0)
        looked_up.append(vectors.detach())
        _loss(vectors, _weights(step, communicator.rank, len(items))).backward()
        table.collect_gradient(rows)
        table.update(plan_update([plan.requested]), RATE, max_grad_norm)
    return table.trainable, looked_up


def _dense_definition(requests: list[list[list[int]]], max_grad_norm: float | None) -> torch.Tensor:
    """The same training with one dense table in float64: mean over ranks, Adam with L2 on touched rows."""
    features, trainable = (tensor.double() for tensor in _dense())
    first, second = torch.zeros_like(trainable), torch.zeros_like(trainable)
    for step, of_ranks in enumerate(requests):
        leaf = trainable.clone().requires_grad_()
        loss = 0 * leaf.sum()
        for rank, items in enumerate(of_ranks):
            everything = torch.cat([features, leaf], dim=1)
            vectors = (
                torch.stack([everything[i] if i >= 0 else torch.zeros(everything.shape[1]).double() for i in items])
                if items
                else torch.zeros(0, everything.shape[1]).double()
            )
            loss = loss + _loss(vectors, _weights(step, rank, len(items)).double()) / len(of_ranks)
        loss.backward()
        gradient = leaf.grad
        if max_grad_norm is not None:
            gradient = gradient * min(1.0, max_grad_norm / (float(gradient.norm()) + 1e-6))
        for row in sorted({i for items in of_ranks for i in items if i >= 0}):
            g = gradient[row] + DECAY * trainable[row]
            first[row] = 0.9 * first[row] + 0.1 * g
            second[row] = 0.999 * second[row] + 0.001 * g * g
            corrected = first[row] / (1 - 0.9 ** (step + 1))
            trainable[row] -= RATE * corrected / ((second[row] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
    return trainable


CASES = {
    "plain": [[[0, 5, 22], [7, 7, 1], [3, 11, 12]], [[5, 2, 9], [22, 0, 0], [4, 4, 4]]],
    "duplicates within and across ranks": [[[4, 4, 4, 4], [4, 4], [4]], [[4], [4, 9], [9, 9]]],
    "padding": [[[-1, 3, -1], [-1, -1], [22, -1]], [[0, -1], [-1], [1]]],
    "empty requests": [[[], [1, 2], []], [[], [], []], [[3], [], [3]]],
    "one owner is asked by all": [[[0, 1, 2], [2, 1, 0], [1, 1, 2]], [[0], [1], [2]]],
}


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_equals_dense_table(case: str, world_size: int, max_grad_norm: float | None) -> None:
    requests = [step[:world_size] for step in CASES[case]]
    results = run_ranks(world_size, _train, requests, max_grad_norm)
    expected = _dense_definition(requests, max_grad_norm)
    torch.testing.assert_close(torch.cat([rows for rows, _ in results]).double(), expected, rtol=0, atol=1e-5)

    features, trainable = _dense()
    everything = torch.cat([features, trainable], dim=1)
    for rank, (_, looked_up) in enumerate(results):
        items = torch.tensor(requests[0][rank], dtype=torch.int64)
        wanted = torch.where((items >= 0)[:, None], everything[items], 0) if len(items) else looked_up[0]
        assert torch.equal(looked_up[0], wanted)


@pytest.mark.distributed
def test_untouched_rows_and_features_keep_their_bytes() -> None:
    touched = {3, 8, 20}
    (rows, _), (more, _) = run_ranks(2, _train, [[[3, 8], [20, 3]]], None)
    _, before = _dense()
    changed = (torch.cat([rows, more]) != before).any(dim=1)
    assert set(torch.nonzero(changed).ravel().tolist()) == touched


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(1, 8), st.data())
def test_partition_covers_every_row_once(num_rows: int, world_size: int, data: st.DataObject) -> None:
    partition = RowPartition(num_rows, world_size)
    ranges = [partition.range(rank) for rank in range(world_size)]
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(num_rows))
    rows = sorted(data.draw(st.sets(st.integers(0, num_rows - 1)))) if num_rows else []
    counts = partition.counts(np.array(rows, np.int64))
    assert counts == [sum(start <= row < stop for row in rows) for start, stop in ranges]


def test_row_adam_equals_torch_sparse_adam() -> None:
    parameter = torch.randn(10, 4, generator=torch.Generator().manual_seed(2))
    reference = torch.nn.Parameter(parameter.clone())
    sparse = torch.optim.SparseAdam([reference], lr=0.1)
    state = torch.cat([parameter, torch.zeros(10, 8)], dim=1)
    ours = RowAdam()
    for rows in ([0, 3], [3], [9, 0, 5]):
        index = torch.tensor(rows)
        gradient = torch.randn(len(rows), 4, generator=torch.Generator().manual_seed(len(rows)))
        reference.grad = torch.sparse_coo_tensor(index[None], gradient, parameter.shape)
        sparse.step()
        update_rows(state, index, gradient, ours.next_step(0.1))
    torch.testing.assert_close(state[:, :4], reference.detach(), rtol=0, atol=1e-6)
