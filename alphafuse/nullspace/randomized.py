"""Finds the leading eigenvectors of a covariance by products with a few vectors alone.

Owns the range finder. Knows nothing of where the covariance comes from: each application of the operator may be a pass
over data on many machines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

Operator = Callable[[np.ndarray], np.ndarray]
"""Function from a matrix X [dim, columns] to C X [dim, columns], with a symmetric, positive semi-definite C."""


GRAM_WIDTH = 4.0
"""`gram` is the faster method up to a dimension of GRAM_WIDTH · (passes of the range finder) · (its columns).

There the operations are equal: n·d² of the Gram pass against 4·n·d·columns in each pass of the range finder. Measured
(docs/performance.md; 128 directions, 16 oversampled, 4 passes: 2,304): `gram` takes 0.43 of the time of `randomized` at
d = 1,024, and 1.24 times as long at d = 3,072. Interpolated in logarithms, both are equally fast at d = 2,500.
"""


def faster_method(
    dim: int, num_directions: int, *, oversampling: int, power_passes: int
) -> Literal["gram", "randomized"]:
    """The method that `decompose.method: auto` takes: `gram`, which is exact, unless the range finder is faster."""
    columns = num_directions + oversampling
    return "gram" if dim <= GRAM_WIDTH * num_passes(power_passes) * columns else "randomized"


def num_passes(power_passes: int) -> int:
    """Most applications of the operator in `randomized_eigen`: for the range, the powers, and the projection of C."""
    return power_passes + 2


def randomized_eigen(
    operator: Operator, dim: int, num_directions: int, *, oversampling: int, power_passes: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leading eigenpairs by a randomized range finder and Rayleigh–Ritz.

    The range finder is that of Halko, Martinsson & Tropp (2011), alg. 4.4, with orthonormalisation between the passes.
    Rayleigh–Ritz then runs on the span of *all* iterates Ω, CΩ, …, C^{q+1}Ω rather than of the last alone, as in
    Halko, Martinsson, Shkolnisky & Tygert (2011). This costs no further pass, and keeps its accuracy on slowly decaying
    spectra (Musco & Musco 2015). The operator gets [dim, num_directions + oversampling] at most; this function holds
    [dim, (power_passes + 2) · (num_directions + oversampling)].

    Args:
        operator: the covariance. It is applied `num_passes(power_passes)` times, or fewer if the iterates span an
            invariant space before that (the result is then exact).
        dim: dimension of the space.
        num_directions: number of wanted eigenpairs, at most `dim`.
        oversampling: number of additional random directions.
        power_passes: q.
        seed: seed of the random start.

    Returns:
        eigenvalues λ, descending, [min(num_directions + oversampling, dim)]; eigenvectors u [dim, the same]; and their
        residuals ‖C u − λ u‖ [the same]. The first `num_directions` are the accurate ones.
    """
    width = min(num_directions + oversampling, dim)
    start = np.random.default_rng(seed).standard_normal((dim, width))
    block = np.linalg.qr(start)[0]  # [dim, width]
    basis, image = np.empty((dim, 0)), np.empty((dim, 0))
    noise = 0.0
    for application in range(num_passes(power_passes)):
        product = operator(block)
        basis, image = np.hstack([basis, block]), np.hstack([image, product])
        if application == 0:
            noise = dim * float(np.finfo(np.float64).eps * np.linalg.norm(product, 2))
        block = _complement(product, basis, noise)
        if block.shape[1] == 0:
            break
    projected = basis.T @ image  # [columns, columns]: C in the basis
    values, vectors = np.linalg.eigh((projected + projected.T) / 2)
    values, vectors = values[::-1][:width], vectors[:, ::-1][:, :width]
    found = basis @ vectors
    return values, found, np.linalg.norm(image @ vectors - found * values, axis=0)


def _complement(product: np.ndarray, basis: np.ndarray, noise: float) -> np.ndarray:
    """Orthonormal directions of `product` outside of `basis` that are longer than `noise`, [dim, 0 … columns]."""
    residual = product - basis @ (basis.T @ product)
    vectors, lengths, _ = np.linalg.svd(residual, full_matrices=False)
    kept = vectors[:, lengths > noise][:, : len(basis) - basis.shape[1]]
    # Repeated, since rounding leaves a part inside of the basis if the residual is much shorter than the product.
    kept = kept - basis @ (basis.T @ kept)
    return np.linalg.qr(kept)[0]
