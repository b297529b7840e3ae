"""Blocks of rows against the matrix that they make together."""

from __future__ import annotations

import pytest
import torch

from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks

MATRIX = torch.arange(24.0).view(12, 2)
BLOCKS = VectorBlocks([MATRIX[:5], MATRIX[5:5], MATRIX[5:6], MATRIX[6:]])


@pytest.mark.parametrize("rows", [slice(0, 12), slice(1, 4), slice(4, 8), slice(5, 6), slice(12, 20), slice(8, None)])
def test_slices(rows: slice) -> None:
    assert torch.equal(BLOCKS[rows], MATRIX[rows])


def test_a_slice_of_one_block_is_a_view() -> None:
    assert BLOCKS[1:4].data_ptr() == MATRIX[1:].data_ptr()


def test_chosen_rows() -> None:
    chosen = torch.tensor([11, 0, 5, 5, 6, 4])
    assert torch.equal(BLOCKS[chosen], MATRIX[chosen])
    assert BLOCKS[chosen[:0]].shape == (0, 2)


def test_parts_cover_all_rows_in_order() -> None:
    parts = list(BLOCKS.split(4))
    assert torch.equal(torch.cat(parts), MATRIX)
    assert max(map(len, parts)) <= 4
    assert len(BLOCKS) == 12
