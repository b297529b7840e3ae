"""The decomposition by its definition, in memory and float64; tests compare the streamed one with it."""

from __future__ import annotations

import numpy as np


def exact_covariance(rows: np.ndarray, popularity: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean [dim] and covariance [dim, dim] of rows [items, dim] by numpy's own definition."""
    rows = rows.astype(np.float64)
    if popularity is None:
        return rows.mean(axis=0), np.cov(rows, rowvar=False)
    shares = popularity / popularity.sum()
    mean = np.average(rows, axis=0, weights=shares)
    return mean, sum(share * np.outer(row - mean, row - mean) for share, row in zip(shares, rows, strict=True))


def exact_eigen(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, descending, and eigenvectors in columns."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors[:, ::-1]


def exact_features(rows: np.ndarray, scale: float, hidden_dim: int) -> np.ndarray:
    """Whitened features of all rows, up to the sign of each column."""
    scaled = scale * rows.astype(np.float64)
    mean, covariance = exact_covariance(scaled)
    values, vectors = exact_eigen(covariance)
    return (scaled - mean) @ vectors[:, :hidden_dim] / np.sqrt(values[:hidden_dim])


def rows_with_spectrum(
    num_items: int, eigenvalues: np.ndarray, seed: int, dtype: type[np.floating] = np.float64
) -> np.ndarray:
    """Random rows [num_items, dim] around a mean that is not zero, whose covariance has about these eigenvalues."""
    generator = np.random.default_rng(seed)
    dim = len(eigenvalues)
    rotation = np.linalg.qr(generator.standard_normal((dim, dim)))[0]
    rows = generator.standard_normal((num_items, dim)) * np.sqrt(eigenvalues) @ rotation.T
    return (rows + generator.standard_normal(dim)).astype(dtype)
