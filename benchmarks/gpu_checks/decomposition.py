"""Checks of the decomposition: spectrum and row space equal those of numpy, and products are as fast as torch's."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch

from alphafuse.nullspace.decomposition import RELATIVE_FLOOR
from alphafuse.nullspace.moments import Moments
from alphafuse.nullspace.randomized import randomized_eigen
from alphafuse.nullspace.torch_arithmetic import TorchArithmetic
from benchmarks.gpu_checks.outcome import seconds_of
from jobs.stages.decompose_tasks import rows_of_a_block

TOLERANCE = 1e-6
ROW_DIM = 64
GIGA, TERA = 1e9, 1e12
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


def equals_numpy(device: torch.device, num_items: int = 50_000, dim: int = 512, block: int = 6000) -> dict[str, Any]:
    """Both methods, in both precisions, whichever the card takes: eigenvalues of the row space to 1e-6, all others to
    the floor of whitening, and the projector onto the row space to 1e-6; the mean is far from zero."""
    generator = np.random.default_rng(0)
    row_dim = min(ROW_DIM, dim // 2)
    spectrum = 1 / (1 + np.arange(dim)) * np.where(np.arange(dim) < row_dim, 1, 0.1)  # a gap behind the row space
    rotation = np.linalg.qr(generator.standard_normal((dim, dim)))[0]
    rows = generator.standard_normal((num_items, dim)) * np.sqrt(spectrum) @ rotation.T
    rows = (rows + 10 * generator.standard_normal(dim)).astype(np.float16)
    exact_values, exact_vectors = _eigen(np.cov(rows.astype(np.float64), rowvar=False))
    figures: dict[str, Any] = {"precision of this card": str(TorchArithmetic.on(device).precision)}
    for precision, dtype in PRECISIONS.items():
        arithmetic = TorchArithmetic(device, dtype)
        values, vectors, _ = randomized_eigen(
            lambda probe: _moments(arithmetic, rows, block, probe).covariance(),  # noqa: B023
            dim,
            dim,
            oversampling=1,
            power_passes=0,
            seed=0,
        )
        found = {"gram": _eigen(_moments(arithmetic, rows, block).covariance()), "randomized": (values, vectors)}
        for method, (values, vectors) in found.items():
            errors = np.abs(values - exact_values)
            row, exact_row = vectors[:, :row_dim], exact_vectors[:, :row_dim]
            name = f"{method}, {precision}"
            largest = float((errors / exact_values)[:row_dim].max())
            turned = float(np.linalg.norm(row @ row.T - exact_row @ exact_row.T, 2))
            assert largest <= TOLERANCE, f"{name}: eigenvalues of the row space are {largest:.1e} off"
            assert errors.max() <= RELATIVE_FLOOR * exact_values[0], f"{name}: an eigenvalue is {errors.max():.1e} off"
            assert turned <= TOLERANCE, f"{name}: the row space is {turned:.1e} off"
            figures |= {f"error of eigenvalues, {name}": largest, f"error of the row space, {name}": turned}
    return figures


def time_of_moments(device: torch.device, dims: tuple[int, ...] = (1024, 4096), blocks: int = 8) -> dict[str, Any]:
    """Moments of blocks as a task reads them, from the host's memory, beside the bare product of a block on the device.

    Gigabytes are those of the embeddings in float16: to read them takes longer on most machines.
    """
    figures: dict[str, Any] = {}
    for dim in dims:
        rows = rows_of_a_block(dim)
        block = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float16)
        for precision, dtype in PRECISIONS.items():
            arithmetic = TorchArithmetic(device, dtype)
            factor = arithmetic.put(block).to(dtype)
            product = seconds_of(lambda: factor.T @ factor, device, blocks)  # noqa: B023
            whole = np.tile(block, (blocks, 1))
            seconds = seconds_of(lambda: _moments(arithmetic, whole, rows), device, 1) / blocks  # noqa: B023
            name = f"{dim} dimensions, {precision}"
            figures |= {
                f"TFLOP/s, {name}": 2 * rows * dim**2 / seconds / TERA,
                f"moments / product, {name}": seconds / product,
                f"GB/s, {name}": block.nbytes / seconds / GIGA,
            }
    return figures


def _moments(arithmetic: TorchArithmetic, rows: np.ndarray, block: int, probe: np.ndarray | None = None) -> Moments:
    placed = None if probe is None else arithmetic.put(probe)
    parts = (rows[first : first + block] for first in range(0, len(rows), block))
    found = (Moments.of(part, probe=placed, arithmetic=arithmetic) for part in parts)
    return reduce(Moments.merge, found).fetched(arithmetic)


def _eigen(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, descending, and eigenvectors in columns."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors[:, ::-1]
