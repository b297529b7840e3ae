"""The product of a tile of rows with a tile of other rows, which other kernels are made of."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_products(
    left: tl.tensor,
    right: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    row_inside: tl.tensor,
    column_inside: tl.tensor,
    width: tl.tensor,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Products of the rows `rows` of `left` with the rows `columns` of `right`, float32 [rows, columns]; zeros for rows
    that are not inside. Both matrices have `width` contiguous columns."""
    products = tl.zeros([rows.shape[0], columns.shape[0]], tl.float32)
    left_rows = left + rows.to(tl.int64)[:, None] * width
    right_rows = right + columns.to(tl.int64)[None, :] * width
    for start in range(0, width, STEP):
        place = start + tl.arange(0, STEP)
        there = place < width
        one = tl.load(left_rows + place[None, :], mask=row_inside[:, None] & there[None, :], other=0.0)
        other = tl.load(right_rows + place[:, None], mask=there[:, None] & column_inside[None, :], other=0.0)
        products = tl.dot(one, other, products, input_precision=PRECISION)
    return products
