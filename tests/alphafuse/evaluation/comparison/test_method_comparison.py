"""Numbers of a comparison, checked against hand-made ranks."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
from scipy import stats
from support.workspaces.compared_methods import METRICS, RANKS, comparison_without_common_seeds, hand_made_comparison
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import GridConfig
from alphafuse.evaluation.comparison.method_comparison import Comparison, compare_methods


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


def _p_value(differences: list[list[float]]) -> float:
    """Two-sided, of a mean difference by seed and user: a t-test whose variance is the sum of those of the users' and
    of the seeds' means, with the degrees of freedom of Satterthwaite."""
    kinds = [
        [statistics.mean(each) for each in zip(*differences, strict=True)],
        list(map(statistics.mean, differences)),
    ]
    parts = [(statistics.variance(means) / len(means), len(means) - 1) for means in kinds if len(means) > 1]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 1.0  # no difference at all
    freedom = variance**2 / sum(part**2 / free for part, free in parts)
    return float(2 * stats.t.sf(abs(statistics.mean(kinds[0])) / math.sqrt(variance), freedom))


def test_p_values_are_those_of_users_and_seeds_with_holms_correction(comparison: Comparison) -> None:
    rows = {row.name: row for row in comparison.rows}
    shared = {"IDs": ("IDs", (1, 2)), "text": ("text", (1,)), "both": ("text", (1,))}  # seeds that AlphaFuse has, too
    for metric, gain in METRICS.items():
        # Every user has two queries.
        means = {
            key: [statistics.mean(own) for own in (gain(ranks)[:2], gain(ranks)[2:])] for key, ranks in RANKS.items()
        }
        differences = {
            name: [
                [own - other for own, other in zip(means[row, s], means["AlphaFuse", s], strict=True)] for s in seeds
            ]
            for name, (row, seeds) in shared.items()
        }
        raw = {name: _p_value(each) for name, each in differences.items()}
        highest, corrected = 0.0, {}
        for place, name in enumerate(sorted(raw, key=lambda name: raw[name])):
            highest = max(highest, min(1.0, raw[name] * (3 - place)))
            corrected[name] = highest
        for name in raw:
            estimate, expected = rows[name].estimates[metric], statistics.mean(map(statistics.mean, differences[name]))
            assert estimate.p_value == pytest.approx(raw[name])
            assert estimate.p_corrected == pytest.approx(corrected[name])
            assert estimate.difference == pytest.approx(expected)
            ends = [end for end in (estimate.low, estimate.high) if end is not None]
            assert statistics.mean(ends) == pytest.approx(expected)
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
