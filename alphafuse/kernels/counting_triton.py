"""The kernels of `counting`: a product of tiles, and comparisons with the target's score at its end."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from alphafuse.kernels.tile_products import tile_products

TILE, STEP = 64, 32
"""Rows and columns of a tile of scores, and columns of vectors that are multiplied at a time."""
PROGRAMS = 1024
"""Programs that the items are split over, so that a GPU is full even with few queries."""
SHAPE = {"TILE": TILE, "STEP": STEP, "PRECISION": "ieee", "num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
"""One shape for all scores, so that equal vectors have equal ones."""


def count_better(
    hidden: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor, scores: torch.Tensor
) -> torch.Tensor:
    """See `counting.Rivals.count_better`."""
    num_queries, width = hidden.shape
    blocks, tiles = triton.cdiv(num_queries, TILE), triton.cdiv(len(vectors), TILE)
    splits = max(1, min(triton.cdiv(PROGRAMS, max(1, blocks)), tiles))
    tiles = triton.cdiv(tiles, splits)
    counts = torch.empty(splits, num_queries, dtype=torch.int32, device=hidden.device)
    if num_queries:
        # Blocks of queries come first: programs that run at the same time read the same items.
        _count_better[(blocks, splits)](
            *(hidden.contiguous(), vectors.contiguous(), targets, scores, counts),
            *(num_queries, len(vectors), width, tiles),
            **SHAPE,
        )
    return counts.sum(dim=0)


def score_pairs(hidden: torch.Tensor, queries: torch.Tensor, vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """See `counting.scores_of_pairs`."""
    scores = hidden.new_empty(len(queries))
    if len(queries):
        _score_pairs[(triton.cdiv(len(queries), TILE),)](
            hidden.contiguous(), vectors.contiguous(), queries, rows, scores, len(queries), hidden.shape[1], **SHAPE
        )
    return scores


@triton.jit(do_not_specialize=["num_queries", "num_items", "tiles"])
def _count_better(
    hidden: tl.tensor,
    vectors: tl.tensor,
    targets: tl.tensor,
    scores: tl.tensor,
    counts: tl.tensor,
    num_queries: tl.tensor,
    num_items: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    split = tl.program_id(1)
    query = tl.program_id(0) * TILE + tl.arange(0, TILE)
    query_inside = query < num_queries
    target = tl.load(targets + query, mask=query_inside, other=0)[:, None]
    wanted = tl.load(scores + query, mask=query_inside, other=0.0)[:, None]
    count = tl.zeros([TILE], tl.int32)
    for tile in range(split * tiles, (split + 1) * tiles):
        item = tile * TILE + tl.arange(0, TILE)
        item_inside = item < num_items
        found = tile_products(hidden, vectors, query, item, query_inside, item_inside, width, STEP, PRECISION)
        better = (found > wanted) | ((found == wanted) & (item[None, :] < target))
        count += tl.sum((better & item_inside[None, :]).to(tl.int32), axis=1)
    tl.store(counts + split * num_queries + query, count, mask=query_inside)


@triton.jit(do_not_specialize=["num_pairs"])
def _score_pairs(
    hidden: tl.tensor,
    vectors: tl.tensor,
    queries: tl.tensor,
    rows: tl.tensor,
    scores: tl.tensor,
    num_pairs: tl.tensor,
    width: tl.tensor,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """The diagonal of a tile of products is what belongs together: as costly as a tile, and rounded as one."""
    place = tl.arange(0, TILE)
    pair = tl.program_id(0) * TILE + place
    inside = pair < num_pairs
    query = tl.load(queries + pair, mask=inside, other=0)
    row = tl.load(rows + pair, mask=inside, other=0)
    found = tile_products(hidden, vectors, query, row, inside, inside, width, STEP, PRECISION)
    own = tl.sum(tl.where(place[:, None] == place[None, :], found, 0.0), axis=1)
    tl.store(scores + pair, own, mask=inside)
