"""Measures how far a catalog has moved from the null space that a model was trained in, and aligns a new null space
with the old one, so that the model can be read through it.

A row of features is x = (e − μ) P with P = U Λ^{-1/2} (U alone without whitening). Primes mark what belongs to the new
catalog: mean μ′, covariance C′ and its k leading eigenvectors U′ with eigenvalues Λ′. All numbers need C′U [dim, k]
and no embeddings. Knows nothing of files, of workers or of models.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes, subspace_angles

from alphafuse.config.sections.update import UpdateConfig
from alphafuse.nullspace.decomposition import NullSpace

KEPT, ALIGNED, RECOMPUTED = "kept", "aligned", "recomputed"
"""Fates of the null space of a model that is updated. A recomputed one has nothing to do with the old one: the
model is trained from scratch."""


@dataclass(frozen=True)
class Drift:
    """Distance of a catalog from an old null space.

    Single directions are arbitrary where eigenvalues lie close, so angles are those between subspaces: the largest
    principal angle, in degrees.

    Attributes:
        lost_energy: 1 − ρ/ρ*, with the share ρ = tr(UᵀC′U) / tr C′ of the variance that the old directions hold, and
            the share ρ* = Σ λ′ / tr C′ of the best ones.
        distortion: ‖W − I‖_F / √k, with the covariance W = Λ^{-1/2} UᵀC′U Λ^{-1/2} of the whitened old features.
        shift: ‖Λ^{-1/2} Uᵀ(μ′ − μ)‖ / √k, the move of the mean, in standard deviations.
        row_angle, null_angle, kept_angle: angles between the old and the new row space, null space and both together.
    """

    lost_energy: float
    distortion: float
    shift: float
    row_angle: float
    null_angle: float
    kept_angle: float


def measure_drift(old: NullSpace, new: NullSpace, product: np.ndarray) -> Drift:
    """Measure how far a new catalog has moved from `old`.

    Args:
        new: null space of the new catalog, as wide and cut as the old one.
        product: [dim, k], C′U, of the scaled embeddings, with U the old directions.
    """
    deviations = old.deviations
    captured = old.basis.T @ product  # [k, k], UᵀC′U
    best = float(new.eigenvalues.sum())
    whitened = captured / np.outer(deviations, deviations)  # W
    undisturbed = np.diag(old.eigenvalues / deviations**2)  # I, but for directions below the floor of whitening
    root, row = np.sqrt(old.hidden_dim), old.row_dim
    moved = (new.mean - old.mean) @ old.basis / deviations
    return Drift(
        lost_energy=1.0 - float(np.trace(captured)) / best,
        distortion=float(np.linalg.norm(whitened - undisturbed) / root),
        shift=float(np.linalg.norm(moved) / root),
        row_angle=_angle(old.basis[:, :row], new.basis[:, :row]),
        null_angle=_angle(old.basis[:, row:], new.basis[:, row:]),
        kept_angle=_angle(old.basis, new.basis),
    )


def align(old: NullSpace, new: NullSpace, product: np.ndarray) -> tuple[NullSpace, float]:
    """Turn the features of a new null space until they are as near as possible to those of the old one.

    Row space and null space are turned by themselves, by the orthogonal Q that minimises the mean of ‖x₀′Q − x‖² over
    the new catalog (orthogonal Procrustes): with M = P₀′ᵀ C′ P = A Σ Bᵀ, a block of it at a time, Q = A Bᵀ.

    Args:
        new: null space of the new catalog, as wide and cut as the old one.
        product: [dim, k], C′U, of the scaled embeddings, with U the old directions.

    Returns:
        The new null space with the rotation Q, and how far its null-space features are from the old ones, as a share of
        their mean square over the new catalog.
    """
    across = new.to_features(old.to_features(product).T @ new.basis).T  # [k, k], M
    rotation = np.zeros_like(across)
    row, null = slice(0, old.row_dim), slice(old.row_dim, old.hidden_dim)
    for block in (row, null):
        rotation[block, block], overlap = orthogonal_procrustes(np.eye(len(across[block])), across[block, block])
    spread = old.to_features(old.to_features(old.basis.T @ product).T)  # [k, k], the covariance of x
    moved = old.to_features((new.mean - old.mean) @ old.basis)[null]
    squares = float(np.trace(spread[null, null]) + moved @ moved)
    turned = float(np.trace(new.to_features(new.to_features(np.diag(new.eigenvalues)).T)[null, null]))
    change = max(0.0, squares + turned - 2 * overlap) / squares  # the overlap is that of the last block, the null space
    return dataclasses.replace(new, rotation=rotation), change


@dataclass(frozen=True)
class Continuation:
    """The null space of an update.

    Attributes:
        kind: `KEPT`, `ALIGNED` or `RECOMPUTED`.
        reason: why, with the numbers.
        change: relative square change of the aligned null-space features; None where none were aligned.
    """

    kind: str
    reason: str
    nullspace: NullSpace
    drift: Drift
    change: float | None = None

    def summary(self) -> dict[str, Any]:
        """The facts for manifests, events and reports."""
        return {"kind": self.kind, "reason": self.reason, "change": self.change, **dataclasses.asdict(self.drift)}


def continue_nullspace(
    old: NullSpace, new: NullSpace, product: np.ndarray, config: UpdateConfig, can_align: bool = True
) -> Continuation:
    """Decide what becomes of the null space of a model whose catalog has changed.

    Args:
        new: null space of the new catalog, as wide as the old one.
        product: [dim, k], C′U, of the scaled embeddings, with U the old directions.
        config: thresholds.
        can_align: False for encoders that read the directions themselves, which only a kept null space preserves.
    """
    cut = dataclasses.replace(new, null_dim=old.null_dim)
    drift = measure_drift(old, cut, product)
    numbers = f"energy lost {drift.lost_energy:.2g}, distortion {drift.distortion:.2g}"
    if drift.lost_energy <= config.max_lost_energy and drift.distortion <= config.max_distortion:
        return Continuation(KEPT, f"{numbers}: within the thresholds", old, drift)
    if not can_align:
        return Continuation(RECOMPUTED, f"{numbers}, and the encoder reads the directions themselves", new, drift)
    aligned, change = align(old, cut, product)
    reason = f"{numbers}, null-space features changed by {change:.2g}"
    if change <= config.max_change:
        return Continuation(ALIGNED, reason, aligned, drift, change)
    return Continuation(RECOMPUTED, reason, new, drift, change)


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(subspace_angles(one, other).max()))
