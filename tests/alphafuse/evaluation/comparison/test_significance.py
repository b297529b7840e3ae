"""P-values against scipy, and against simulation for users with several queries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from alphafuse.evaluation.comparison.significance import holm, paired_test


def test_with_one_query_for_each_user_it_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.random(40), generator.random(40) + 0.1
    expected = stats.ttest_rel(one, other).pvalue
    found = paired_test((one - other)[None], generator.permutation(40))
    assert found.p_value == pytest.approx(expected)
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_with_equally_many_queries_it_is_the_test_of_the_users_means() -> None:
    differences = np.random.default_rng(1).normal(0.2, 1, (30, 4))
    expected = stats.ttest_1samp(differences.mean(axis=1), 0).pvalue
    assert paired_test(differences.reshape(1, -1), np.repeat(np.arange(30), 4)).p_value == pytest.approx(expected)


def test_false_findings_are_as_rare_as_promised_where_a_users_queries_agree() -> None:
    """No difference, but the queries of each user share a deviation, and users have 1 to 20 of them."""
    generator = np.random.default_rng(2)
    found = 0
    for _ in range(1000):
        users = np.repeat(np.arange(60), generator.integers(1, 20, 60))
        differences = generator.normal(size=60)[users] + 0.1 * generator.normal(size=len(users))
        found += paired_test(differences[None], users).p_value < 0.05
    assert 30 < found < 80  # a test that takes queries as independent finds more than 400


def test_seeds_by_hand() -> None:
    """Two seeds, two users with one query each, mean 3. The users' means are 2 and 4, the seeds' 1 and 5: variances of
    the mean of 2 / 2 and of 8 / 2."""
    found, freedom = paired_test(np.array([[0.0, 2.0], [4.0, 6.0]]), np.array([0, 1])), (1 + 4) ** 2 / (1**2 + 4**2)
    assert found.mean == 3
    assert found.p_value == pytest.approx(2 * stats.t.sf(3 / math.sqrt(5), freedom))
    assert found.high - 3 == pytest.approx(stats.t.isf(0.025, freedom) * math.sqrt(5))
    assert found.low + found.high == pytest.approx(6)


@pytest.mark.parametrize("of_seeds", [0.0, 0.1, 0.2, 1.0])
def test_false_findings_stay_rare_where_trainings_differ(of_seeds: float) -> None:
    """No difference but of 3 trainings, and of 200 users. An average over the seeds, tested over users alone, finds
    more than 200 of 1,000 with the third value."""
    generator, users, found = np.random.default_rng(3), np.arange(200), 0
    for _ in range(1000):
        differences = of_seeds * generator.normal(size=(3, 1)) + generator.normal(size=200)
        differences = differences + generator.normal(size=(3, 200))
        found += paired_test(differences, users).p_value < 0.05
    assert found < 80


def test_edges() -> None:
    assert paired_test(np.zeros((2, 5)), np.arange(5)).p_value == 1
    assert paired_test(np.ones((1, 5)), np.arange(5)).p_value == 0
    assert math.isnan(paired_test(np.ones((1, 3)), np.zeros(3, int)).p_value)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
