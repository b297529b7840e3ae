"""Moments by torch, in float64 and in float32 blocks, against numpy in float64 over all rows at once."""

from __future__ import annotations

from functools import reduce
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from support.definitions.dense_decomposition import exact_covariance, exact_eigen, rows_with_spectrum

from alphafuse.nullspace.decomposition import RELATIVE_FLOOR
from alphafuse.nullspace.moments import Moments
from alphafuse.nullspace.randomized import randomized_eigen
from alphafuse.nullspace.torch_arithmetic import FLOAT32_ROWS, TorchArithmetic, product_precision

DIM, ROW_DIM = 48, 6
GAP = np.concatenate([np.linspace(2, 1, ROW_DIM), 0.1 * 0.9 ** np.arange(DIM - ROW_DIM)])
"""Eigenvalues with a gap behind the row space, which determines it well."""

precisions = pytest.mark.parametrize("precision", [torch.float64, torch.float32])
devices = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
        ),
    ],
)


def _of_small_rank(num_items: int) -> np.ndarray:
    generator = np.random.default_rng(2)
    return generator.standard_normal((num_items, ROW_DIM)) @ generator.standard_normal((ROW_DIM, DIM)) + 0.5


CASES: dict[str, tuple[np.ndarray, int]] = {
    "not a multiple of the blocks": (rows_with_spectrum(2 * FLOAT32_ROWS + 453, GAP, 1, np.float16), 2000),
    "blocks of three rows": (rows_with_spectrum(1000, GAP, 2, np.float16), 3),
    "blocks of one row": (rows_with_spectrum(70, GAP, 3, np.float32), 1),
    "a mean 10,000 times the deviation": (rows_with_spectrum(3000, 1e-4 * GAP, 4) + 100.0, 1300),
    "columns of widely different scales": (
        (np.random.default_rng(5).standard_normal((3000, DIM)) * np.logspace(3, -3, DIM)).astype(np.float32) + 1,
        1300,
    ),
    "rank 6 of 48": (_of_small_rank(2500), 1100),
    "fewer rows than dimensions": (rows_with_spectrum(20, GAP, 6, np.float32), 7),
}
"""By name: rows as they are stored, and how many of them a block has."""


def moments_of(
    arithmetic: TorchArithmetic,
    rows: np.ndarray,
    block: int,
    present: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    probe: np.ndarray | None = None,
) -> Moments:
    """Moments of blocks, merged from the left on the device."""
    placed = None if probe is None else arithmetic.put(probe)
    parts = [slice(first, first + block) for first in range(0, len(rows), block)]
    found = [
        Moments.of(
            rows[part],
            None if present is None else present[part],
            None if weights is None else weights[part],
            probe=placed,
            arithmetic=arithmetic,
        )
        for part in parts
    ]
    return reduce(Moments.merge, found).fetched(arithmetic)


def assert_close(values: np.ndarray, vectors: np.ndarray, covariance: np.ndarray, precision: torch.dtype) -> None:
    """Check eigenvalues and the projector onto the row space against those of the exact covariance: to 1e-6; of
    small eigenvalues, in float32, to the floor of whitening, which takes those below it for rounding."""
    exact_values, exact_vectors = exact_eigen(covariance)
    floor = {torch.float64: 1e-13, torch.float32: RELATIVE_FLOOR}[precision] * exact_values[0]
    np.testing.assert_allclose(values, exact_values[: len(values)], rtol=1e-6, atol=floor)
    row, exact_row = vectors[:, :ROW_DIM], exact_vectors[:, :ROW_DIM]
    assert np.linalg.norm(row @ row.T - exact_row @ exact_row.T, 2) < 1e-6


@devices
@precisions
@pytest.mark.parametrize("name", CASES)
def test_spectrum_and_row_space_are_those_of_numpy(name: str, precision: torch.dtype, device: str) -> None:
    rows, block = CASES[name]

    found = moments_of(TorchArithmetic(torch.device(device), precision), rows, block)

    mean, covariance = exact_covariance(rows)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-12 * np.abs(mean).max())
    assert found.total_variance() == pytest.approx(np.trace(covariance), rel=1e-11)
    assert_close(*exact_eigen(found.covariance()), covariance, precision)


@devices
@precisions
@pytest.mark.parametrize("name", CASES)
def test_the_range_finder_is_as_exact(name: str, precision: torch.dtype, device: str) -> None:
    """As many directions as dimensions, of which the range finder makes no error of its own."""
    rows, block = CASES[name]
    arithmetic = TorchArithmetic(torch.device(device), precision)

    values, vectors, _ = randomized_eigen(
        lambda probe: moments_of(arithmetic, rows, block, probe=probe).covariance(),
        DIM,
        DIM - 4,
        oversampling=4,
        power_passes=1,
        seed=0,
    )

    assert_close(values, vectors, exact_covariance(rows)[1], precision)


@devices
@precisions
def test_weights_and_absent_rows(precision: torch.dtype, device: str) -> None:
    rows, block = CASES["not a multiple of the blocks"]
    generator = np.random.default_rng(7)
    weights, present = generator.integers(0, 4, len(rows)), generator.random(len(rows)) < 0.9
    stored = np.where(present[:, None], rows, np.float16(np.nan))

    found = moments_of(TorchArithmetic(torch.device(device), precision), stored, block, present, weights)

    counted = present & (weights > 0)
    mean, covariance = exact_covariance(rows[counted], weights[counted])
    assert (found.count, found.weight) == (counted.sum(), weights[counted].sum())
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-12)
    assert_close(*exact_eigen(found.covariance()), covariance, precision)


def test_products_of_float32_are_neither_rounded_further_nor_summed_over_more_rows() -> None:
    rows = torch.ones(2 * FLOAT32_ROWS + 1, 3, dtype=torch.float64)
    seen: list[tuple[int, torch.dtype, str]] = []
    product = torch.Tensor.__matmul__

    def watched(one: torch.Tensor, other: torch.Tensor) -> Any:
        seen.append((len(other), other.dtype, torch.get_float32_matmul_precision()))
        return product(one, other)

    torch.set_float32_matmul_precision("medium")
    try:
        with patch.object(torch.Tensor, "__matmul__", watched):
            found = TorchArithmetic(torch.device("cpu"), torch.float32).scatter(rows, None)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [(count, torch.float32, "highest") for count in (FLOAT32_ROWS, FLOAT32_ROWS, 1)]
    assert found.dtype == torch.float64
    assert (found == len(rows)).all()


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((8, 0), torch.float64),  # A100
        ((9, 0), torch.float64),  # H100
        ((10, 0), torch.float64),  # B200
        ((7, 5), torch.float32),  # T4
        ((8, 6), torch.float32),  # A10
        ((8, 9), torch.float32),  # L4, L40S
        ((10, 3), torch.float32),  # B300
        ((12, 0), torch.float32),  # RTX 5090
        ((99, 0), torch.float32),  # not known
    ],
)
def test_the_precision_goes_by_the_card(capability: tuple[int, int], precision: torch.dtype) -> None:
    assert product_precision(SimpleNamespace(major=capability[0], minor=capability[1])) == precision


def test_a_cpu_multiplies_in_float64() -> None:
    assert TorchArithmetic.on(torch.device("cpu")).precision == torch.float64
