"""Whether two models differ, judged by the queries that both have answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def paired_p_value(differences: np.ndarray, users: np.ndarray) -> float:
    """Two-sided p-value of the paired t-test whose samples are users: of a mean difference that is zero.

    The queries of one user are not independent of each other: the variance of the mean is that of clusters of queries
    (Liang & Zeger 1986, with the factor U / (U − 1)). With one query for each user this is the usual paired t-test.

    Args:
        differences: [queries], of the metric between two models.
        users: int64 [queries], number of the user of each query, from 0 on without gaps.

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
    """P-values corrected for being several: the chance of any false finding is bounded (Holm 1979)."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return corrected.tolist()
