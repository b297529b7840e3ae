"""The kernels of `negative_sums`: scores are computed tile by tile, and computed again in the backward pass.

The gradient of one side is a sum over the other: ∂L/∂s_t = Σ_j G_tj v_j and ∂L/∂v_j = Σ_t G_tj s_t, where G_tj is g_t
times exp(s_t · v_j + w_j − log partition) or times the sigmoid of s_t · v_j. One kernel computes both, with the sides
exchanged. A sum is split over programs where there are few rows; its parts are added by torch, so that no sum depends
on which program comes first.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from alphafuse.kernels.negative_sums import NOTHING
from alphafuse.kernels.tile_products import tile_products

TILE = 64
"""Rows and columns of a tile of scores."""
WIDEST, STEP = 128, 32
"""Most columns of a gradient that a program holds, and columns of vectors that are multiplied at a time: they fit into
the shared memory of small GPUs."""
PROGRAMS, MOST_SPLITS = 256, 8
"""Programs that fill a GPU, and the most parts that a sum is split into for it."""
PRECISION = "tf32"
"""Products of float32 are rounded to TF32, and summed in float32: losses need no more (ranks do)."""
SHAPE = {"TILE": TILE, "STEP": STEP, "PRECISION": PRECISION, "num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}


def tiled_log_partition(
    states: torch.Tensor,
    vectors: torch.Tensor,
    targets: torch.Tensor,
    items: torch.Tensor,
    log_weights: torch.Tensor | None,
) -> torch.Tensor:
    """See `negative_sums.log_partition`; `targets` and `items` are the numbers of `OwnNegatives`."""
    result: torch.Tensor = _LogPartition.apply(states, vectors, targets, items, log_weights)
    return result


def tiled_softplus_sums(
    states: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor, items: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `negative_sums.softplus_sums`; `targets` and `items` are the numbers of `OwnNegatives`."""
    sums, counts = _SoftplusSums.apply(states, vectors, targets, items)
    return sums, counts


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        vectors: torch.Tensor,
        targets: torch.Tensor,
        items: torch.Tensor,
        log_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        states, vectors = states.contiguous(), vectors.contiguous()
        parts, _ = _sums(states, vectors, targets, items, log_weights, softplus=False)
        result = parts[0] if len(parts) == 1 else parts.logsumexp(dim=0)
        ctx.save_for_backward(states, vectors, targets, items, log_weights, result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, vectors, targets, items, log_weights, result = ctx.saved_tensors
        gradient, shift = gradient.contiguous(), -result
        of_states = _gradient(states, targets, shift, gradient, vectors, items, log_weights, None, softplus=False)
        of_vectors = _gradient(vectors, items, log_weights, None, states, targets, shift, gradient, softplus=False)
        return of_states, of_vectors, None, None, None


class _SoftplusSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor, items: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states, vectors = states.contiguous(), vectors.contiguous()
        sums, counts = _sums(states, vectors, targets, items, None, softplus=True)
        ctx.save_for_backward(states, vectors, targets, items)
        counted = counts.sum(dim=0)
        ctx.mark_non_differentiable(counted)
        return sums.sum(dim=0), counted

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        states, vectors, targets, items = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_states = _gradient(states, targets, None, gradient, vectors, items, None, None, softplus=True)
        of_vectors = _gradient(vectors, items, None, None, states, targets, None, gradient, softplus=True)
        return of_states, of_vectors, None, None


def _sums(
    states: torch.Tensor,
    vectors: torch.Tensor,
    targets: torch.Tensor,
    items: torch.Tensor,
    log_weights: torch.Tensor | None,
    softplus: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Parts of the sum of each target, and of the number of its negatives (for `softplus`): [splits, targets] each."""
    num_targets, width = states.shape
    blocks, splits, tiles = _split(num_targets, len(vectors))
    sums = states.new_empty(splits, num_targets)
    counts = torch.empty(splits if softplus else 0, num_targets, dtype=torch.int32, device=states.device)
    if num_targets:
        _sum_scores[(blocks, splits)](
            *(states, vectors, targets, items, log_weights, sums, counts, num_targets, len(vectors), width, tiles),
            SOFTPLUS=softplus,
            EMPTY=NOTHING,
            **SHAPE,
        )
    return sums, counts


def _gradient(
    rows: torch.Tensor,
    row_numbers: torch.Tensor,
    row_shift: torch.Tensor | None,
    row_factor: torch.Tensor | None,
    columns: torch.Tensor,
    column_numbers: torch.Tensor,
    column_shift: torch.Tensor | None,
    column_factor: torch.Tensor | None,
    softplus: bool,
) -> torch.Tensor:
    """Σ_c G_rc c over the columns, [rows, width], of vectors `rows` [rows, width] and `columns` [columns, width] with
    numbers, shifts that are added to the scores, and factors: [rows] and [columns] each. G is the product of both
    factors and the exponential or, for `softplus`, the sigmoid of the score; zero where the numbers are equal."""
    num_rows, width = rows.shape
    blocks, splits, tiles = _split(num_rows, len(columns))
    parts = rows.new_empty(splits, num_rows, width)
    if num_rows:
        held = min(WIDEST, max(16, triton.next_power_of_2(width)))
        _sum_gradient[(blocks, splits, triton.cdiv(width, held))](
            *(rows, row_numbers, row_shift, row_factor, columns, column_numbers, column_shift, column_factor, parts),
            *(num_rows, len(columns), width, tiles),
            HELD=held,
            SOFTPLUS=softplus,
            **SHAPE,
        )
    return parts[0] if splits == 1 else parts.sum(dim=0)


def _split(num_rows: int, num_columns: int) -> tuple[int, int, int]:
    """Numbers of blocks of rows, of parts that the columns are split into, and of tiles of a part."""
    blocks, tiles = triton.cdiv(num_rows, TILE), triton.cdiv(num_columns, TILE)
    splits = max(1, min(triton.cdiv(PROGRAMS, max(1, blocks)), MOST_SPLITS, tiles))
    return blocks, splits, triton.cdiv(tiles, splits)


@triton.jit(do_not_specialize=["num_targets", "num_items", "tiles"])
def _sum_scores(
    states: tl.tensor,
    vectors: tl.tensor,
    targets: tl.tensor,
    items: tl.tensor,
    log_weights: tl.tensor,
    sums: tl.tensor,
    counts: tl.tensor,
    num_targets: tl.tensor,
    num_items: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    SOFTPLUS: tl.constexpr,
    EMPTY: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    split = tl.program_id(1)
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    row_inside = row < num_targets
    target = tl.load(targets + row, mask=row_inside, other=-1)
    total = tl.zeros([TILE], tl.float32)
    highest = tl.full([TILE], EMPTY, tl.float32)
    count = tl.zeros([TILE], tl.int32)
    for tile in range(split * tiles, (split + 1) * tiles):
        column = tile * TILE + tl.arange(0, TILE)
        column_inside = column < num_items
        scores = tile_products(states, vectors, row, column, row_inside, column_inside, width, STEP, PRECISION)
        item = tl.load(items + column, mask=column_inside, other=-1)
        counted = column_inside[None, :] & (target[:, None] != item[None, :])
        if SOFTPLUS:
            values = tl.maximum(scores, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(scores)))
            total += tl.sum(tl.where(counted, values, 0.0), axis=1)
            count += tl.sum(counted.to(tl.int32), axis=1)
        else:
            if log_weights is not None:
                scores += tl.load(log_weights + column, mask=column_inside, other=0.0)[None, :]
            scores = tl.where(counted, scores, EMPTY)
            higher = tl.maximum(highest, tl.max(scores, axis=1))
            values = tl.where(counted, tl.exp(scores - higher[:, None]), 0.0)
            total = total * tl.exp(highest - higher) + tl.sum(values, axis=1)
            highest = higher
    place = split * num_targets + row
    if SOFTPLUS:
        tl.store(sums + place, total, mask=row_inside)
        tl.store(counts + place, count, mask=row_inside)
    else:
        # An empty sum has no logarithm.
        result = tl.where(total > 0.0, highest + tl.log(tl.where(total > 0.0, total, 1.0)), EMPTY)
        tl.store(sums + place, result, mask=row_inside)


@triton.jit(do_not_specialize=["num_rows", "num_columns", "tiles"])
def _sum_gradient(
    rows: tl.tensor,
    row_numbers: tl.tensor,
    row_shift: tl.tensor,
    row_factor: tl.tensor,
    columns: tl.tensor,
    column_numbers: tl.tensor,
    column_shift: tl.tensor,
    column_factor: tl.tensor,
    parts: tl.tensor,
    num_rows: tl.tensor,
    num_columns: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    HELD: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    split = tl.program_id(1)
    place = tl.program_id(2) * HELD + tl.arange(0, HELD)
    there = place < width
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    row_inside = row < num_rows
    row_number = tl.load(row_numbers + row, mask=row_inside, other=-1)
    result = tl.zeros([TILE, HELD], tl.float32)
    for tile in range(split * tiles, (split + 1) * tiles):
        column = tile * TILE + tl.arange(0, TILE)
        column_inside = column < num_columns
        scores = tile_products(rows, columns, row, column, row_inside, column_inside, width, STEP, PRECISION)
        if row_shift is not None:
            scores += tl.load(row_shift + row, mask=row_inside, other=0.0)[:, None]
        if column_shift is not None:
            scores += tl.load(column_shift + column, mask=column_inside, other=0.0)[None, :]
        column_number = tl.load(column_numbers + column, mask=column_inside, other=-1)
        counted = row_inside[:, None] & column_inside[None, :] & (row_number[:, None] != column_number[None, :])
        shares = tl.sigmoid(scores) if SOFTPLUS else tl.exp(scores)
        shares = tl.where(counted, shares, 0.0)
        if column_factor is not None:
            shares *= tl.load(column_factor + column, mask=column_inside, other=0.0)[None, :]
        vectors = tl.load(
            columns + column.to(tl.int64)[:, None] * width + place[None, :],
            mask=column_inside[:, None] & there[None, :],
            other=0.0,
        )
        result = tl.dot(shares, vectors, result, input_precision=PRECISION)
    if row_factor is not None:
        result *= tl.load(row_factor + row, mask=row_inside, other=0.0)[:, None]
    out = parts + (split.to(tl.int64) * num_rows + row)[:, None] * width + place[None, :]
    tl.store(out, result, mask=row_inside[:, None] & there[None, :])
