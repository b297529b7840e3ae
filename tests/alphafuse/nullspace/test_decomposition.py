"""Cut, whitening, signs and storage of the null space."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from support.definitions.dense_decomposition import exact_eigen, exact_features, rows_with_spectrum

from alphafuse.config import DecomposeConfig
from alphafuse.errors import ConfigError, DataError, WorkspaceError
from alphafuse.nullspace.decomposition import (
    RELATIVE_FLOOR,
    NullSpace,
    build_nullspace,
    choose_null_dim,
    load_nullspace,
    require_feasible,
    save_nullspace,
)
from alphafuse.nullspace.moments import Moments
from alphafuse.nullspace.randomized import randomized_eigen
from alphafuse.storage.workspace import Workspace

HIDDEN_DIM = 12
ROWS = rows_with_spectrum(400, 0.8 ** np.arange(30), seed=9, dtype=np.float32)


def decompose(rows: np.ndarray, method: str = "gram", hidden_dim: int = HIDDEN_DIM, **settings) -> NullSpace:
    config = DecomposeConfig(**{"scale": 40.0, "null_dim": 5, **settings})
    moments = Moments.of(rows)
    if method == "gram":
        values, vectors = exact_eigen(moments.covariance())
    else:
        values, vectors, _ = randomized_eigen(
            lambda probe: Moments.of(rows, probe=probe).covariance(),
            rows.shape[1],
            hidden_dim,
            oversampling=config.oversampling,
            power_passes=config.power_passes,
            seed=0,
        )
    variance = moments.total_variance()
    return build_nullspace(moments.mean, values, vectors, variance, hidden_dim=hidden_dim, config=config, method=method)


def null_dim(eigenvalues: list[float], **settings) -> int:
    return choose_null_dim(np.array(eigenvalues), DecomposeConfig(**{"null_dim": None, **settings}))


def test_features_are_the_references_up_to_sign():
    features = decompose(ROWS).project(ROWS)
    expected = exact_features(ROWS, 40.0, HIDDEN_DIM)

    signs = np.sign((features * expected).sum(axis=0))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features * signs, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["gram", "randomized"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_whitened_features_have_identity_covariance(method, dtype):
    rows = ROWS.astype(dtype)

    features = decompose(rows, method).project(rows).astype(np.float64)

    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(features, rowvar=False), np.eye(HIDDEN_DIM), atol=1e-4)


def test_features_that_are_not_whitened_have_the_eigenvalues_as_variances():
    nullspace = decompose(ROWS, standardize=False)

    covariance = np.cov(nullspace.project(ROWS).astype(np.float64), rowvar=False)

    np.testing.assert_allclose(covariance, np.diag(nullspace.eigenvalues), atol=1e-4 * nullspace.eigenvalues[0])


def test_both_methods_project_alike():
    gram, randomized = decompose(ROWS), decompose(ROWS, "randomized")

    assert subspace_angles(gram.basis, randomized.basis).max() < 1e-6
    np.testing.assert_allclose(randomized.eigenvalues, gram.eigenvalues, rtol=1e-8)
    np.testing.assert_allclose(randomized.project(ROWS), gram.project(ROWS), atol=1e-4)
    assert gram.spectrum.shape == (30,)
    assert randomized.spectrum.shape == (HIDDEN_DIM + 16,)
    assert randomized.retained_energy == pytest.approx(gram.retained_energy, rel=1e-8)


def test_everything_is_of_the_scaled_embeddings():
    scaled = decompose(40 * ROWS.astype(np.float64), scale=1.0)
    nullspace = decompose(ROWS, scale=40.0)

    np.testing.assert_allclose(nullspace.mean, scaled.mean, rtol=1e-9)
    np.testing.assert_allclose(nullspace.eigenvalues, scaled.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(nullspace.spectrum, scaled.spectrum, rtol=1e-9)
    np.testing.assert_allclose(nullspace.basis, scaled.basis, atol=1e-8)
    assert nullspace.total_variance == pytest.approx(scaled.total_variance)
    assert nullspace.total_variance == pytest.approx(np.var(40.0 * ROWS.astype(np.float64), axis=0, ddof=1).sum())
    np.testing.assert_allclose(nullspace.project(ROWS), scaled.project(40 * ROWS.astype(np.float64)), atol=1e-5)


def test_signs_are_fixed_by_the_largest_component():
    nullspace = decompose(ROWS)
    values, vectors = exact_eigen(np.cov(ROWS.astype(np.float64), rowvar=False))
    flipped = build_nullspace(
        ROWS.mean(axis=0),
        values,
        -vectors,
        1.0,
        hidden_dim=HIDDEN_DIM,
        config=DecomposeConfig(null_dim=5),
        method="gram",
    )

    largest = np.abs(nullspace.basis).argmax(axis=0)
    assert (nullspace.basis[largest, np.arange(HIDDEN_DIM)] > 0).all()
    np.testing.assert_allclose(flipped.basis, nullspace.basis, atol=1e-9)


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 1), (1.0, 2), (1.5, 2), (4.0, 3)])
def test_null_threshold_counts_eigenvalues_up_to_it(threshold, expected):
    assert null_dim([8.0, 4.0, 1.0, 0.5], null_threshold=threshold) == expected


@pytest.mark.parametrize(("energy", "expected"), [(0.3, 3), (0.5, 3), (0.6, 2), (0.75, 2), (0.76, 1), (0.875, 1)])
def test_row_energy_keeps_the_smallest_row_space_that_holds_it(energy, expected):
    assert null_dim([8.0, 4.0, 2.0, 2.0], row_energy=energy) == expected


@pytest.mark.parametrize(("kept", "expected"), [(192, 160), (65, 33), (64, 32), (63, 32), (5, 3), (2, 1)])
def test_where_nothing_cuts_the_row_space_has_32_directions_and_at_most_half(kept, expected):
    assert null_dim([1.0] * kept) == expected


def test_one_direction_cannot_be_cut():
    with pytest.raises(ConfigError, match="null_dim 1 leaves no row space among the 1 kept directions"):
        null_dim([1.0])


def test_null_dim_is_taken_as_given():
    assert null_dim([8.0, 4.0, 1.0, 0.5], null_dim=3) == 3
    nullspace = decompose(ROWS, null_dim=4)
    assert (nullspace.row_dim, nullspace.null_dim, nullspace.hidden_dim) == (HIDDEN_DIM - 4, 4, HIDDEN_DIM)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"null_dim": 4}, "null_dim 4 leaves no row space"),
        ({"null_dim": 5}, "null_dim 5 leaves no row space"),
        ({"null_threshold": 8.0}, "null_threshold 8 leaves no row space"),
        ({"null_threshold": 0.4}, "null_threshold 0.4 leaves no null space.*from 8 down to 0.5"),
        ({"row_energy": 0.999}, "row_energy 0.999 leaves no null space"),
    ],
)
def test_an_empty_row_or_null_space_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        null_dim([8.0, 4.0, 1.0, 0.5], **settings)


@pytest.mark.parametrize("method", ["gram", "randomized"])
def test_all_directions_can_be_kept(method):
    """If model.hidden_dim is the dimension of the embeddings, unwhitened features are a rotation."""
    nullspace = decompose(ROWS, method, hidden_dim=ROWS.shape[1], standardize=False)
    assert nullspace.retained_energy == pytest.approx(1)
    centred = 40.0 * (ROWS - ROWS.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(nullspace.project(ROWS) @ nullspace.basis.T, centred, atol=1e-4)


@pytest.mark.parametrize("method", ["gram", "randomized"])
def test_eigenvalues_near_zero_are_clamped_and_counted(method):
    eigenvalues = np.concatenate([0.5 ** np.arange(6), [1e-9], np.zeros(13)])
    rows = rows_with_spectrum(300, eigenvalues, seed=3)

    nullspace = decompose(rows, method, hidden_dim=10, null_dim=3)

    variances = nullspace.project(rows).astype(np.float64).var(axis=0, ddof=1)
    floor = RELATIVE_FLOOR * nullspace.eigenvalues[0]
    assert nullspace.clamped == 4
    assert nullspace.eigenvalue_floor == floor
    assert (nullspace.eigenvalues >= 0).all()
    np.testing.assert_allclose(variances[:6], 1, atol=1e-4)
    np.testing.assert_allclose(variances[6], nullspace.eigenvalues[6] / floor, rtol=1e-3)
    assert (variances[7:] < 1e-6).all()


def test_without_whitening_nothing_is_clamped():
    rows = rows_with_spectrum(300, np.concatenate([np.ones(6), np.zeros(13)]), seed=3)

    assert decompose(rows, hidden_dim=10, null_dim=3, standardize=False).clamped == 0


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_equal_embeddings_are_refused(value):
    with pytest.raises(DataError, match="all embeddings are the same"):
        decompose(np.full((50, 20), value, np.float32))


def test_dimensions_that_cannot_be_had_are_refused():
    require_feasible(num_items=8, embedding_dim=8, hidden_dim=8)
    with pytest.raises(ConfigError, match=r"hidden_dim \(9\) exceeds the 8"):
        require_feasible(num_items=100, embedding_dim=8, hidden_dim=9)
    with pytest.raises(DataError, match=r"7 items that count.*fewer than the 8.*set model\.hidden_dim to 3"):
        require_feasible(num_items=7, embedding_dim=8, hidden_dim=8)


class TestStorage:
    def test_what_is_loaded_projects_alike(self, tmp_path):
        workspace, nullspace = Workspace(str(tmp_path)), decompose(ROWS)

        save_nullspace(nullspace, workspace.artifact("nullspace"), {"from": "test"}, {"num_items": 400})
        loaded = load_nullspace(workspace)

        np.testing.assert_array_equal(loaded.project(ROWS), nullspace.project(ROWS))
        np.testing.assert_array_equal(loaded.spectrum, nullspace.spectrum)
        assert loaded.summary() == nullspace.summary()
        details = workspace.artifact("nullspace").require().details
        assert details == {**nullspace.summary(), "num_items": 400}

    def test_a_damaged_file_is_named(self, tmp_path):
        workspace = Workspace(str(tmp_path))
        save_nullspace(decompose(ROWS), workspace.artifact("nullspace"), {"from": "test"})
        path = tmp_path / "nullspace" / "nullspace.safetensors"
        path.write_bytes(path.read_bytes()[:200])

        with pytest.raises(WorkspaceError, match=r"nullspace\.safetensors cannot be used.*--redo decompose"):
            load_nullspace(workspace)

    def test_arrays_of_another_decomposition_are_refused(self, tmp_path):
        workspace = Workspace(str(tmp_path / "one"))
        save_nullspace(decompose(ROWS), workspace.artifact("nullspace"), {"from": "test"})
        other = Workspace(str(tmp_path / "other"))
        save_nullspace(decompose(ROWS, hidden_dim=9), other.artifact("nullspace"), {"from": "test"})
        path = tmp_path / "other" / "nullspace" / "nullspace.safetensors"
        (tmp_path / "one" / "nullspace" / "nullspace.safetensors").write_bytes(path.read_bytes())

        with pytest.raises(WorkspaceError, match="its checksum differs from the manifest's"):
            load_nullspace(workspace)
