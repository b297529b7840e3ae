"""Metrics on tables small enough to check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alphafuse.evaluation.ranking_metrics import CatalogUse, ranking_metrics, tail_items


def test_ranking_metrics_of_four_queries() -> None:
    metrics = ranking_metrics(np.array([1, 3, 10, 40]), (1, 3, 10))
    assert metrics["hr@1"] == 0.25
    assert metrics["hr@3"] == 0.5
    assert metrics["hr@10"] == 0.75
    assert metrics["ndcg@1"] == 0.25
    assert metrics["ndcg@3"] == pytest.approx((1 + 1 / math.log2(4)) / 4)
    assert metrics["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4) + 1 / math.log2(11)) / 4)
    assert metrics["mrr@10"] == pytest.approx((1 + 1 / 3 + 1 / 10) / 4)
    assert set(metrics) == {f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in (1, 3, 10)}


def test_metrics_without_queries_are_not_numbers() -> None:
    assert math.isnan(ranking_metrics(np.zeros(0, np.int64), (5,))["ndcg@5"])


def test_the_tail_is_the_less_popular_share() -> None:
    popularity = np.array([5, 0, 9, 0, 7])
    assert tail_items(popularity, 0.6).tolist() == [True, True, False, True, False]
    assert tail_items(popularity, 0.8).tolist() == [True, True, False, True, True]
    assert tail_items(popularity, 0.0).tolist() == [False] * 5
    assert tail_items(popularity, 1.0).tolist() == [True] * 5


def test_catalog_use_of_three_lists_in_two_batches() -> None:
    popularity = np.array([10, 4, 2, 0])
    use = CatalogUse(popularity, np.array([False, False, True, True]), (1, 2))
    use.add(np.array([[0, 1], [0, 2]]))
    use.add(np.array([[1, -1]]))  # a list with one item only
    result = use.result()
    assert result["coverage@1"] == 0.5  # items 0 and 1
    assert result["coverage@2"] == 0.75
    assert result["average_popularity@1"] == pytest.approx((10 + 10 + 4) / 3)
    assert result["average_popularity@2"] == pytest.approx((10 + 4 + 10 + 2 + 4) / 5)
    assert result["tail_share@1"] == 0
    assert result["tail_share@2"] == pytest.approx(1 / 5)
