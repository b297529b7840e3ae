"""P-values against scipy, and against simulation for users with several queries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from alphafuse.evaluation.significance import holm, paired_p_value


def test_with_one_query_for_each_user_it_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.random(40), generator.random(40) + 0.1
    expected = stats.ttest_rel(one, other).pvalue
    assert paired_p_value(one - other, generator.permutation(40)) == pytest.approx(expected)


def test_with_equally_many_queries_it_is_the_test_of_the_users_means() -> None:
    differences = np.random.default_rng(1).normal(0.2, 1, (30, 4))
    expected = stats.ttest_1samp(differences.mean(axis=1), 0).pvalue
    assert paired_p_value(differences.ravel(), np.repeat(np.arange(30), 4)) == pytest.approx(expected)


def test_false_findings_are_as_rare_as_promised_where_a_users_queries_agree() -> None:
    """No difference, but the queries of each user share a deviation, and users have 1 to 20 of them."""
    generator = np.random.default_rng(2)
    found = 0
    for _ in range(1000):
        users = np.repeat(np.arange(60), generator.integers(1, 20, 60))
        differences = generator.normal(size=60)[users] + 0.1 * generator.normal(size=len(users))
        found += paired_p_value(differences, users) < 0.05
    assert 30 < found < 80  # a test that takes queries as independent finds more than 400


def test_edges() -> None:
    assert paired_p_value(np.zeros(5), np.arange(5)) == 1
    assert paired_p_value(np.ones(5), np.arange(5)) == 0
    assert math.isnan(paired_p_value(np.ones(3), np.zeros(3, int)))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
