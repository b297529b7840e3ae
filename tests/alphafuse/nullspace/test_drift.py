"""Drift and alignment against the definitions on all rows, dense and in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.definitions.dense_decomposition import exact_covariance, exact_eigen, rows_with_spectrum

from alphafuse.config import DecomposeConfig
from alphafuse.config.sections.update import UpdateConfig
from alphafuse.nullspace.decomposition import NullSpace, build_nullspace
from alphafuse.nullspace.drift import Continuation, align, continue_nullspace, measure_drift

DIM, HIDDEN, NULL, SCALE = 20, 8, 3, 5.0
SPECTRUM = np.geomspace(4.0, 0.05, DIM)


def _rows(seed: int = 0, items: int = 400) -> np.ndarray:
    return rows_with_spectrum(items, SPECTRUM, seed)


def _nullspace(rows: np.ndarray, **settings: object) -> NullSpace:
    mean, covariance = exact_covariance(rows)
    values, vectors = exact_eigen(covariance)
    config = DecomposeConfig(**{"scale": SCALE, "null_dim": NULL, **settings})
    total = float(np.trace(covariance))
    return build_nullspace(mean, values, vectors, total, hidden_dim=HIDDEN, config=config, method="gram")


def _product(old: NullSpace, rows: np.ndarray) -> np.ndarray:
    return exact_covariance(SCALE * rows)[1] @ old.basis


def _grown(rows: np.ndarray, share: float) -> np.ndarray:
    """The rows with new ones, of another distribution, among them."""
    return np.concatenate([rows, 0.5 + _rows(seed=1, items=round(share * len(rows)))])


@pytest.mark.parametrize("standardize", [True, False])
def test_drift_is_that_of_the_definition(standardize: bool) -> None:
    before, after = _rows(), _grown(_rows(), 0.3)
    old, new = _nullspace(before, standardize=standardize), _nullspace(after, standardize=standardize)
    drift = measure_drift(old, new, _product(old, after))

    scaled = SCALE * after
    _, covariance = exact_covariance(scaled)
    held = np.var((scaled - scaled.mean(axis=0)) @ old.basis, axis=0, ddof=1).sum()
    best = np.linalg.eigvalsh(covariance)[::-1][:HIDDEN].sum()
    assert drift.lost_energy == pytest.approx(1 - held / best)
    whitened = scaled @ old.basis / np.sqrt(old.eigenvalues)
    assert drift.distortion == pytest.approx(np.linalg.norm(np.cov(whitened.T) - np.eye(HIDDEN)) / np.sqrt(HIDDEN))
    moved = (scaled.mean(axis=0) - SCALE * before.mean(axis=0)) @ old.basis / np.sqrt(old.eigenvalues)
    assert drift.shift == pytest.approx(np.linalg.norm(moved) / np.sqrt(HIDDEN))
    for name, part in (("row", slice(0, -NULL)), ("null", slice(-NULL, None)), ("kept", slice(None))):
        cosines = np.linalg.svd(old.basis[:, part].T @ new.basis[:, part], compute_uv=False)
        assert getattr(drift, f"{name}_angle") == pytest.approx(np.degrees(np.arccos(cosines.min())))


def test_the_same_catalog_has_not_moved() -> None:
    """Directions without variance, which whitening divides by the floor, are no drift."""
    rows = _rows() * np.where(np.arange(DIM) < HIDDEN - 1, 1, 0)
    old = _nullspace(rows)
    assert old.clamped == 1
    drift = measure_drift(old, old, _product(old, rows))
    assert dataclasses.astuple(drift) == pytest.approx((0,) * 6, abs=1e-6)


@pytest.mark.parametrize("standardize", [True, False])
def test_no_other_turn_of_row_space_and_null_space_is_nearer_to_the_old_features(standardize: bool) -> None:
    before, after = _rows(), _grown(_rows(), 0.3)
    old, new = _nullspace(before, standardize=standardize), _nullspace(after, standardize=standardize)
    aligned, change = align(old, new, _product(old, after))
    was, untouched, now = (each.project(after).astype(np.float64) for each in (old, new, aligned))

    expected = np.zeros((HIDDEN, HIDDEN))
    for part in (slice(0, -NULL), slice(-NULL, None)):
        centred = was[:, part] - was[:, part].mean(axis=0)
        left, _, right = np.linalg.svd(untouched[:, part].T @ centred)
        expected[part, part] = left @ right
    assert aligned.rotation == pytest.approx(expected, abs=1e-4)  # rows are rounded to float32
    assert now == pytest.approx(untouched @ expected, abs=1e-3)
    null_before, null_now = was[:, -NULL:], now[:, -NULL:]
    share = ((null_now - null_before) ** 2).mean() / (null_before**2).mean()
    assert change == pytest.approx(share, rel=0.02)  # covariances divide by n − 1, means by n
    assert ((now - was) ** 2).sum() < 0.5 * ((untouched - was) ** 2).sum()


def test_an_aligned_null_space_is_the_old_one_of_the_next_day() -> None:
    days = [_rows(), _grown(_rows(), 0.2), _grown(_grown(_rows(), 0.2), 0.2)]
    first, second, third = map(_nullspace, days)
    aligned, _ = align(first, second, _product(first, days[1]))
    again, change = align(aligned, third, _product(aligned, days[2]))
    null_before, null_now = (each.project(days[2])[:, -NULL:].astype(np.float64) for each in (aligned, again))
    assert change == pytest.approx(((null_now - null_before) ** 2).mean() / (null_before**2).mean(), rel=0.02)
    unturned = measure_drift(dataclasses.replace(aligned, rotation=None), third, _product(aligned, days[2]))
    assert measure_drift(aligned, third, _product(aligned, days[2])) == unturned


def _continue(after: np.ndarray, can_align: bool = True, **thresholds: float) -> Continuation:
    old = _nullspace(_rows())
    config = UpdateConfig(**thresholds)
    return continue_nullspace(old, _nullspace(after), _product(old, after), config, can_align)


def test_the_numbers_decide() -> None:
    grown = _grown(_rows(), 0.3)
    kept = _continue(_grown(_rows(), 0.005))
    assert (kept.kind, kept.change) == ("kept", None)
    assert kept.nullspace.basis.tobytes() == _nullspace(_rows()).basis.tobytes()
    aligned = _continue(grown, max_distortion=0.01, max_change=2)
    assert aligned.kind == "aligned"
    assert aligned.nullspace.rotation is not None
    assert aligned.reason == (
        f"energy lost {aligned.drift.lost_energy:.2g}, distortion {aligned.drift.distortion:.2g}, "
        f"null-space features changed by {aligned.change:.2g}"
    )
    assert _continue(grown, max_lost_energy=1e-6, max_distortion=9, max_change=2).kind == "aligned"
    for recomputed in (
        _continue(grown, max_distortion=0.01, max_change=1e-4),
        _continue(grown, max_distortion=0.01, max_change=2, can_align=False),
        _continue(rows_with_spectrum(400, SPECTRUM, seed=9)),  # other embeddings
    ):
        assert recomputed.kind == "recomputed"
        assert recomputed.nullspace.rotation is None
