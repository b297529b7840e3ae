"""The range finder against the exact eigenvectors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from support.definitions.dense_decomposition import exact_covariance, exact_eigen, rows_with_spectrum

from alphafuse.nullspace.moments import Moments
from alphafuse.nullspace.randomized import faster_method, num_passes, randomized_eigen


class Streamed:
    """The covariance of rows as an operator that sums over five shards, and counts its passes."""

    def __init__(self, rows: np.ndarray) -> None:
        self.shards = np.array_split(rows, 5)
        self.dim = rows.shape[1]
        self.widths: list[int] = []

    def __call__(self, probe: np.ndarray) -> np.ndarray:
        self.widths.append(probe.shape[1])
        moments = Moments.empty(self.dim, probe=probe)
        for shard in self.shards:
            moments = moments.merge(Moments.of(shard, probe=probe))
        return moments.covariance()


@pytest.mark.parametrize(
    ("dim", "spectrum", "angle"),
    [
        pytest.param(384, 0.95 ** np.arange(384), 1e-3, id="384-geometric"),
        pytest.param(768, 0.98 ** np.arange(768), 1e-3, id="768-slow-geometric"),
        pytest.param(768, (1.0 + np.arange(768)) ** -4, 1e-3, id="768-power-law"),
        # Neighbouring eigenvalues around the cut differ by 1.5 %: the subspace itself is hardly determined.
        pytest.param(768, (1.0 + np.arange(768)) ** -2, 2e-2, id="768-slow-power-law"),
    ],
)
def test_two_power_passes_find_the_leading_subspace(dim, spectrum, angle):
    rows = rows_with_spectrum(3000, spectrum, seed=dim, dtype=np.float32)
    covariance = exact_covariance(rows)[1]
    values, vectors = exact_eigen(covariance)
    operator = Streamed(rows)

    found_values, found_vectors, residuals = randomized_eigen(
        operator, dim, 128, oversampling=16, power_passes=2, seed=3
    )

    assert found_values.shape == (144,)
    assert found_vectors.shape == (dim, 144)
    assert len(operator.widths) <= num_passes(2) == 4
    assert max(operator.widths) == 144
    np.testing.assert_allclose(found_values[:128], values[:128], rtol=1e-4)
    assert subspace_angles(found_vectors[:, :128], vectors[:, :128]).max() < angle
    expected = np.linalg.norm(covariance @ found_vectors - found_vectors * found_values, axis=0)
    np.testing.assert_allclose(residuals, expected, atol=1e-6 * values[0])


def test_the_vectors_are_orthonormal_and_the_seed_decides_them():
    rows = rows_with_spectrum(500, 0.9 ** np.arange(80), seed=2)

    def run(seed: int) -> np.ndarray:
        return randomized_eigen(Streamed(rows), 80, 10, oversampling=5, power_passes=1, seed=seed)[1]

    np.testing.assert_allclose(run(1).T @ run(1), np.eye(15), atol=1e-12)
    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 1e-3


def test_more_power_passes_are_more_accurate():
    rows = rows_with_spectrum(1000, (1.0 + np.arange(200)) ** -1, seed=4)
    exact = exact_eigen(exact_covariance(rows)[1])[1][:, :10]

    def angle(power_passes: int) -> float:
        found = randomized_eigen(Streamed(rows), 200, 10, oversampling=5, power_passes=power_passes, seed=0)[1]
        return float(subspace_angles(found[:, :10], exact).max())

    assert angle(0) > 10 * angle(2) > 10 * angle(6)


def test_a_covariance_of_small_rank_ends_early_and_exactly():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((300, 6)) @ generator.standard_normal((6, 50))
    values, vectors = exact_eigen(exact_covariance(rows)[1])
    operator = Streamed(rows)

    found_values, found_vectors, _ = randomized_eigen(operator, 50, 12, oversampling=4, power_passes=5, seed=0)

    assert len(operator.widths) < num_passes(5)
    np.testing.assert_allclose(found_values[:6], values[:6], rtol=1e-10)
    np.testing.assert_allclose(found_values[6:], 0, atol=1e-10 * values[0])
    np.testing.assert_allclose(found_vectors.T @ found_vectors, np.eye(16), atol=1e-10)
    assert subspace_angles(found_vectors[:, :6], vectors[:, :6]).max() < 1e-6


def test_as_many_directions_as_dimensions_are_exact():
    rows = rows_with_spectrum(100, np.linspace(1, 2, 20), seed=5)
    values, _ = exact_eigen(exact_covariance(rows)[1])

    found_values, _, _ = randomized_eigen(Streamed(rows), 20, 20, oversampling=16, power_passes=2, seed=0)

    np.testing.assert_allclose(found_values, values, rtol=1e-10)


@pytest.mark.parametrize(
    ("dim", "num_directions", "power_passes", "method"),
    [
        (384, 128, 2, "gram"),
        (1024, 128, 2, "gram"),  # measured, docs/performance.md: 22 s against 52 s
        (2304, 128, 2, "gram"),  # as many operations
        (2305, 128, 2, "randomized"),
        (3072, 128, 2, "randomized"),  # measured, docs/performance.md: 34 s against 42 s
        (3072, 128, 4, "gram"),
        (3072, 3072, 0, "gram"),
    ],
)
def test_the_method_with_fewer_operations_is_taken(dim, num_directions, power_passes, method):
    assert faster_method(dim, num_directions, oversampling=16, power_passes=power_passes) == method
