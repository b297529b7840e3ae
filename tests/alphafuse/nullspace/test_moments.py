"""Moments of any partition of the rows equal numpy's over all of them."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.definitions.dense_decomposition import exact_covariance, rows_with_spectrum

from alphafuse.errors import DataError
from alphafuse.nullspace.moments import Moments

ROWS = 60
EMBEDDINGS = rows_with_spectrum(ROWS, 0.7 ** np.arange(7), seed=1) + 5.0

partitions = st.lists(st.integers(0, ROWS), max_size=8).map(lambda cuts: [0, *sorted(cuts), ROWS])
dtypes = st.sampled_from([np.float16, np.float32, np.float64])


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def merged(rows, cuts, *, present=None, weights=None, probe=None) -> Moments:
    """Moments of the parts between consecutive cuts, merged from the left."""
    parts = []
    for start, end in pairwise(cuts):
        here = None if present is None else present[start:end]
        shares = None if weights is None else weights[start:end]
        parts.append(Moments.of(rows[start:end], here, shares, probe=probe))
    start = Moments.empty(rows.shape[1], weighted=weights is not None, probe=probe)
    return reduce(Moments.merge, parts, start)


@settings(deadline=None, max_examples=60)
@given(partitions, dtypes, st.lists(st.booleans(), min_size=ROWS, max_size=ROWS))
def test_covariance_of_any_partition_is_numpys(cuts, dtype, mask):
    present = np.array(mask)
    present[[0, -1]] = True
    rows = EMBEDDINGS.astype(dtype)

    found = merged(rows, cuts, present=present)

    mean, covariance = exact_covariance(rows[present])
    assert found.count == present.sum()
    assert relative_error(found.mean, mean) < 1e-6
    assert relative_error(found.covariance(), covariance) < 1e-6
    assert found.total_variance() == pytest.approx(np.trace(covariance), rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(partitions, dtypes, st.lists(st.integers(0, 5), min_size=ROWS, max_size=ROWS))
def test_weighted_covariance_of_any_partition_is_the_definition(cuts, dtype, counts):
    popularity = np.array(counts)
    popularity[[3, 50]] = 1, 2
    rows = EMBEDDINGS.astype(dtype)

    found = merged(rows, cuts, weights=popularity)

    mean, covariance = exact_covariance(rows, popularity)
    assert found.count == (popularity > 0).sum()
    assert relative_error(found.mean, mean) < 1e-6
    assert relative_error(found.covariance(), covariance) < 1e-6
    assert found.total_variance() == pytest.approx(np.trace(covariance), rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(partitions, st.booleans())
def test_probed_covariance_is_the_covariance_times_the_probe(cuts, weighted):
    probe = np.random.default_rng(0).standard_normal((EMBEDDINGS.shape[1], 3))
    weights = np.arange(ROWS) % 4 if weighted else None

    found = merged(EMBEDDINGS, cuts, weights=weights, probe=probe)

    _, covariance = exact_covariance(EMBEDDINGS, weights)
    assert relative_error(found.covariance(), covariance @ probe) < 1e-9
    assert found.total_variance() == pytest.approx(np.trace(covariance), rel=1e-9)


def test_a_mean_far_from_zero_costs_no_digits():
    rows = EMBEDDINGS + 1e6

    found = merged(rows, [0, 7, 30, ROWS])

    assert relative_error(found.covariance(), np.cov(EMBEDDINGS, rowvar=False)) < 1e-6


def test_equal_weights_give_the_uniform_covariance_up_to_its_divisor():
    weighted = Moments.of(EMBEDDINGS, weights=np.full(ROWS, 7))
    uniform = Moments.of(EMBEDDINGS)

    np.testing.assert_allclose(weighted.mean, uniform.mean)
    np.testing.assert_allclose(weighted.covariance(), uniform.covariance() * (ROWS - 1) / ROWS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_values_that_are_not_finite_name_their_items(value, dtype):
    rows = EMBEDDINGS.astype(dtype)
    rows[[4, 9], 2] = value

    with pytest.raises(DataError, match=r"2 embedding.*item_index 104, 109\)"):
        Moments.of(rows, first_row=100)


def test_absent_rows_may_hold_anything():
    rows = EMBEDDINGS.copy()
    present = np.arange(ROWS) != 4
    rows[4] = np.nan

    np.testing.assert_allclose(Moments.of(rows, present).covariance(), np.cov(rows[present], rowvar=False))


def test_fewer_than_two_rows_have_no_covariance():
    with pytest.raises(DataError, match=r"1 item.*at least two"):
        Moments.of(EMBEDDINGS[:1]).covariance()
    with pytest.raises(DataError, match=r"1 item.*training interactions"):
        Moments.of(EMBEDDINGS, weights=np.eye(ROWS)[5]).covariance()


def test_weighted_and_uniform_moments_do_not_mix():
    with pytest.raises(ValueError, match="cannot be merged"):
        Moments.of(EMBEDDINGS).merge(Moments.of(EMBEDDINGS, weights=np.ones(ROWS)))
