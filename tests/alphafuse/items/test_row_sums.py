"""Planned sums and gatherings of rows against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alphafuse.items.row_sums import Gathering, RowSums, group_equal


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 5), max_size=40))
def test_equal_numbers_are_grouped_in_the_order_of_their_places(numbers: list[int]) -> None:
    groups = group_equal(np.array(numbers, np.int64))
    assert groups.values.tolist() == sorted(set(numbers))
    assert [groups.values[place] for place in groups.places()] == numbers
    ends = [*groups.starts, len(numbers)][1:]
    for value, start, end in zip(groups.values, groups.starts, ends, strict=True):
        assert groups.order[start:end].tolist() == [place for place, other in enumerate(numbers) if other == value]


@pytest.mark.parametrize(("numbers", "dim"), [([3, 1, 3, 0, 1, 3], 5), ([7], 130), ([], 4)])
def test_sums_are_those_of_index_add_to_the_last_bit(numbers: list[int], dim: int) -> None:
    groups = group_equal(np.array(numbers, np.int64))
    rows = torch.randn(len(numbers), dim, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(len(groups.values), dim).index_add_(0, torch.from_numpy(groups.places()), rows)
    assert torch.equal(RowSums.of(groups)(rows), expected)


@pytest.mark.parametrize("chosen", [[0, 1, 1, 0, 1], [1, 1], [0, 0], []])
def test_gathering_of_chosen_rows_is_a_mask_with_its_backward_pass(chosen: list[int]) -> None:
    mask = np.array(chosen, bool)
    rows = torch.randn(len(chosen), 3, generator=torch.Generator().manual_seed(1))
    gradients = []
    for gather in (Gathering.at(mask), lambda rows: rows[torch.from_numpy(mask)]):
        leaf = rows.clone().requires_grad_()
        gathered = gather(leaf)
        assert torch.equal(gathered, rows[torch.from_numpy(mask)])
        (gathered * torch.arange(3.0)).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
