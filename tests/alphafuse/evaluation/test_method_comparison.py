"""Numbers of a comparison, checked against hand-made ranks."""

from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path

import pytest
from scipy import stats
from support.workspaces.compared_methods import METRICS, RANKS, comparison_without_common_seeds, hand_made_comparison
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import GridConfig
from alphafuse.evaluation.method_comparison import Comparison, compare_methods


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return hand_made_comparison(tmp_path)


def test_means_and_spreads_are_those_over_the_seeds(comparison: Comparison) -> None:
    rows = {row.name: row for row in comparison.rows}
    for name in ("AlphaFuse", "IDs"):
        for metric, gain in METRICS.items():
            values = [statistics.mean(gain(RANKS[name, seed])) for seed in (1, 2)]
            assert rows[name].estimates[metric].mean == pytest.approx(statistics.mean(values))
            assert rows[name].estimates[metric].std == pytest.approx(statistics.stdev(values))
    assert math.isnan(rows["text"].estimates["hr@3"].std)
    assert (rows["AlphaFuse"].epochs, rows["AlphaFuse"].train_seconds) == (2, 3.0)
    assert (rows["both"].epochs, rows["both"].train_seconds) == (2, 3.5)
    assert rows["AlphaFuse"].validation == pytest.approx((1 / 9 + 1 / 13) / 2)
    assert math.isnan(rows["both"].validation)
    assert rows["broken"].estimates == {}


def test_p_values_are_those_of_a_paired_t_test_over_users_with_holms_correction(comparison: Comparison) -> None:
    rows = {row.name: row for row in comparison.rows}
    for metric, gain in METRICS.items():
        averaged = {
            (name, seeds): [statistics.mean(each) for each in zip(*(gain(RANKS[name, s]) for s in seeds), strict=True)]
            for name, seeds in itertools.product(("AlphaFuse", "IDs", "text"), ((1, 2), (1,)))
            if (name, seeds[-1]) in RANKS
        }
        shared = {"IDs": (1, 2), "text": (1,), "both": (1,)}  # seeds that the row and AlphaFuse have
        averaged |= {("both", (1,)): averaged["text", (1,)]}
        # If all users have as many queries, the test of clusters is the t-test of the users' means.
        averaged = {key: [statistics.mean(own) for own in (each[:2], each[2:])] for key, each in averaged.items()}
        pairs = {name: (averaged[name, seeds], averaged["AlphaFuse", seeds]) for name, seeds in shared.items()}
        raw = {name: stats.ttest_rel(*pair).pvalue for name, pair in pairs.items()}
        raw = {name: 1.0 if math.isnan(value) else value for name, value in raw.items()}  # no difference at all
        highest, corrected = 0.0, {}
        for place, name in enumerate(sorted(raw, key=lambda name: raw[name])):
            highest = max(highest, min(1.0, raw[name] * (3 - place)))
            corrected[name] = highest
        for name in raw:
            estimate = rows[name].estimates[metric]
            assert estimate.p_value == pytest.approx(raw[name])
            assert estimate.p_corrected == pytest.approx(corrected[name])
            own, expected = map(statistics.mean, pairs[name])
            assert estimate.difference == pytest.approx(own - expected)
    assert rows["AlphaFuse"].estimates["hr@3"].difference is None


def test_rows_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    rows = comparison_without_common_seeds(tmp_path).rows
    assert [row.estimates["hr@3"].difference for row in rows] == [None, None]


def test_slices_are_means_over_the_seeds_of_those_that_have_queries(comparison: Comparison) -> None:
    assert comparison.slices == {"items: tail": 2, "histories: short": 1}
    rows = {row.name: row for row in comparison.rows}
    for name in ("AlphaFuse", "IDs"):
        for metric, gain in METRICS.items():
            expected = statistics.mean(value for seed in (1, 2) for value in gain(RANKS[name, seed][2:]))
            assert rows[name].slices["items: tail"][metric] == pytest.approx(expected)
    assert comparison.best("ndcg@10", "items: tail") == {"text", "both"}


def test_the_protocol_is_that_of_all_rows(comparison: Comparison) -> None:
    protocol = comparison.protocol
    assert protocol is not None
    assert (protocol.evaluated, protocol.queries, protocol.users, protocol.num_items) == ("test", 4, 2, 1234)
    assert protocol.rows_by_similarity == {"cosine": ["AlphaFuse", "text", "both"], "dot": ["IDs"]}


def test_without_a_finished_run_there_is_no_protocol(tmp_path: Path) -> None:
    grid = GridConfig(base="b", workspace="w", methods=({"name": "x"},))
    comparison = compare_methods(grid, {"x": tiny_config(tmp_path)}, {"x": {}}, {"x-22": "no memory"})
    assert (comparison.protocol, comparison.slices, comparison.failures) == (None, {}, {"x-22": "no memory"})
