"""Says by what, and where, blocks of embeddings are multiplied: by numpy on the host (this file), or by torch on a
device (`torch_arithmetic.py`). The algorithms of `moments.py` are the same on both.

Hosts compute in numpy: it sees that XᵀX is symmetric, and computes one half of it, where torch computes both. Nor need
their processes import torch, which takes two seconds and 180 MiB in each.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = Any
"""Array of the library that computes: `numpy.ndarray`, or `torch.Tensor` on its device."""


class Arithmetic(Protocol):
    """Products of rows X [rows, dim] in float64, or, where its implementation says so, in another precision."""

    def put(self, array: np.ndarray) -> Array:
        """A copy of an array of any float type, in float64, where it is computed with."""

    def fetch(self, array: Array) -> np.ndarray:
        """An array that was computed, on the host."""

    def scatter(self, rows: Array, probe: Array | None) -> Array:
        """XᵀX [dim, dim]; with a probe Ω [dim, columns] XᵀXΩ [dim, columns]."""

    def squares(self, rows: Array) -> float:
        """Sum of the squares of all numbers, the trace of XᵀX."""


class HostArithmetic:
    """numpy, in float64."""

    def put(self, array: np.ndarray) -> np.ndarray:
        return array.astype(np.float64)

    def fetch(self, array: np.ndarray) -> np.ndarray:
        return array

    def scatter(self, rows: np.ndarray, probe: np.ndarray | None) -> np.ndarray:
        product: np.ndarray = rows.T @ (rows if probe is None else rows @ probe)
        return product

    def squares(self, rows: np.ndarray) -> float:
        return float(np.einsum("ij,ij->", rows, rows))


HOST: Arithmetic = HostArithmetic()
