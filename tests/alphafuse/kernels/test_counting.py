"""The kernels that count items before a target, against a sort of all scores."""

from __future__ import annotations

import pytest
import torch
from support.devices.interpreted_kernels import interpret_kernels
from support.processes.multi_process import run_ranks

from alphafuse.kernels.counting import Rivals, scores_of_pairs

QUERIES, ITEMS, FIRST_ROW, OWN = 70, 200, 30, 131
"""This rank owns the items from `FIRST_ROW` on."""


def _problem(width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, vectors of all items, each of several ones, and targets of all ranks."""
    generator = torch.Generator().manual_seed(width)
    hidden, kinds = torch.randn(QUERIES, width, generator=generator), torch.randn(37, width, generator=generator)
    return hidden, kinds[torch.arange(ITEMS) % 37], torch.randint(ITEMS, (QUERIES,), generator=generator)


def _count(width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts, flags of all pairs of a query and an own item, and scores of the targets."""
    hidden, vectors, targets = _problem(width)
    own, numbers = vectors[FIRST_ROW : FIRST_ROW + OWN], torch.arange(QUERIES)
    scores = scores_of_pairs(hidden, numbers, vectors[targets], numbers)
    rivals = Rivals(hidden, own, targets - FIRST_ROW, scores)
    pairs = rivals.are_better(numbers.repeat_interleave(OWN), torch.arange(OWN).repeat(QUERIES))
    return rivals.count_better(), pairs.view(QUERIES, OWN), scores


@pytest.mark.distributed
@pytest.mark.parametrize("width", [3, 64, 100])
def test_of_equal_scores_the_lower_index_comes_first(width: int) -> None:
    counts, pairs, scores = run_ranks(1, _count, width, prepare=interpret_kernels)[0]
    hidden, vectors, targets = _problem(width)
    # Equal vectors have equal scores by construction: each kind of items is scored once.
    exact = (hidden.double() @ vectors[:37].double().T)[:, torch.arange(ITEMS) % 37]
    wanted = exact.gather(1, targets[:, None])
    torch.testing.assert_close(scores.double(), wanted[:, 0], rtol=1e-5, atol=1e-5)
    before = (exact > wanted) | ((exact == wanted) & (torch.arange(ITEMS) < targets[:, None]))
    own = before[:, FIRST_ROW : FIRST_ROW + OWN]
    assert torch.equal(pairs, own)
    assert counts.tolist() == own.sum(dim=1).tolist()
