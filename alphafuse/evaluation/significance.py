"""Tests if two models differ significantly, by the queries that both have answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def paired_p_value(differences: np.ndarray, users: np.ndarray) -> float:
    """Two-sided p-value of the paired t-test for a mean difference of zero, with users as samples.

    The queries of one user are not independent of each other, so that the variance of the mean is that of clusters of
    queries (Liang & Zeger 1986, with the factor U / (U − 1)). With one query per user this is the usual paired t-test.

    Args:
        differences: [queries], differences of the metric between two models.
        users: int64 [queries], numbers of the users, from 0 on without gaps.

    Returns:
        1 where all differences are equal to zero; NaN for fewer than two users.
    """
    num_users = int(users.max(initial=-1)) + 1
    if num_users < 2:
        return float("nan")
    mean = differences.mean()
    deviations = np.bincount(users, weights=differences - mean)  # [users], sums over the queries of each
    error = np.sqrt(num_users / (num_users - 1) * np.square(deviations).sum()) / len(differences)
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, num_users - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests by Holm's method (1979), which bounds the chance of any false positive."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return corrected.tolist()
