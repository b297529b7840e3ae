"""The table of a comparison, against numbers worked out from hand-made ranks."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from scipy import stats
from support.tiny_workspace import tiny_config

from alphafuse.config import GridConfig
from alphafuse.evaluation.ranks import FILE, SCHEMA
from alphafuse.storage.artifact import fingerprint
from alphafuse.storage.workspace import Workspace
from monitoring.comparison.comparison_results import Comparison, Measured, gather
from monitoring.comparison.comparison_table import to_csv, to_markdown
from monitoring.comparison.dot_plot import dot_plot

USERS = ["ann", "ann", "bob", "bob"]  # of the four queries
RANKS = {
    ("AlphaFuse", 1): [1, 2, 1, 5],
    ("AlphaFuse", 2): [1, 1, 2, 9],
    ("IDs", 1): [3, 8, 2, 20],
    ("IDs", 2): [5, 9, 1, 30],
    ("text", 1): [2, 1, 1, 5],
}
SECONDS = {"AlphaFuse": [1.0, 2.0], "IDs": [3.0], "text": [0.5]}  # of the epochs


def _hits(ranks: list[int]) -> list[float]:
    return [float(rank <= 3) for rank in ranks]


def _ndcg(ranks: list[int]) -> list[float]:
    return [1 / math.log2(1 + rank) if rank <= 10 else 0.0 for rank in ranks]


METRICS = {"ndcg@10": _ndcg, "hr@3": _hits}


def _slice(ranks: list[int]) -> dict[str, float]:
    return {"queries": len(ranks), **{name: statistics.mean(gain(ranks)) for name, gain in METRICS.items()}}


def _details(row: str, ranks: list[int]) -> dict[str, Any]:
    return {"history": [{"seconds": value} for value in SECONDS[row]], "best": {"value": 1 / sum(ranks)}}


def _finished(folder: Path, row: str, ranks: list[int]) -> Measured:
    workspace, inputs = Workspace(str(folder)), {"made by": "hand"}
    evaluation = workspace.artifact("evaluation")
    table = pa.table([USERS, [1] * 4, range(4), ranks], SCHEMA)
    evaluation.write_table(FILE, table, fingerprint(inputs))
    metrics = {
        "split": "test",
        "similarity": "cosine" if row != "IDs" else "dot",
        "exclude_seen": True,
        "queries": 4,
        "num_items": 1234,
        "overall": {name: statistics.mean(gain(ranks)) for name, gain in METRICS.items()},
        "slices": {
            "items": {"tail": _slice(ranks[2:]), "held_out": {"queries": 0, **dict.fromkeys(METRICS)}},
            "histories": {"short": _slice(ranks[:1])},
        },
    }
    evaluation.write_file("metrics.json", json.dumps(metrics).encode(), fingerprint(inputs))
    evaluation.commit(inputs)
    workspace.artifact("model").commit(inputs, _details(row, ranks))
    return Measured(workspace, [workspace])


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    rows: dict[str, dict[int, Measured]] = {"AlphaFuse": {}, "IDs": {}, "text": {}, "broken": {}}
    for (row, seed), ranks in RANKS.items():
        rows[row][seed] = _finished(tmp_path / f"{row}-{seed}", row, ranks)
    rows["both"] = {1: Measured(rows["text"][1].evaluation, [rows[name][1].evaluation for name in ("IDs", "text")])}
    grid = GridConfig(base="b", workspace="w", metrics=tuple(METRICS), methods=({"name": "AlphaFuse"},), seeds=(1, 2))
    return gather(grid, {"AlphaFuse": tiny_config(tmp_path)}, rows, {"broken-1": "no\ntexts"})


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
        # With as many queries for each user, the test of clusters is the t-test of the users' means.
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
    seeds = {"AlphaFuse": (1,), "IDs": (2,)}
    rows = {
        name: {seed: _finished(tmp_path / f"{name}-{seed}", name, RANKS[name, seed]) for seed in own}
        for name, own in seeds.items()
    }
    grid = GridConfig(base="b", workspace="w", metrics=tuple(METRICS), methods=({"name": "AlphaFuse"},), seeds=(1, 2))
    compared = gather(grid, {"AlphaFuse": tiny_config(tmp_path)}, rows, {})
    assert [row.estimates["hr@3"].difference for row in compared.rows] == [None, None]
    page = to_markdown(compared)
    assert "## Differences" not in page
    assert "AlphaFuse (1), IDs (2)" in page


def test_slices_are_means_over_the_seeds_of_those_that_have_queries(comparison: Comparison) -> None:
    assert comparison.slices == {"items: tail": 2, "histories: short": 1}
    rows = {row.name: row for row in comparison.rows}
    for name in ("AlphaFuse", "IDs"):
        for metric, gain in METRICS.items():
            expected = statistics.mean(value for seed in (1, 2) for value in gain(RANKS[name, seed][2:]))
            assert rows[name].slices["items: tail"][metric] == pytest.approx(expected)
    assert comparison.best("ndcg@10", "items: tail") == {"text", "both"}
    page = to_markdown(comparison)
    section = page[page.index("## NDCG@10 by slice") :]
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]
    assert table[0] == ["method", "items: tail", "histories: short"]
    assert table[2] == ["queries", "2", "1"]
    assert next(line for line in table if line[0] == "text") == ["text", "**0.6934**", "0.6309"]
    lines = csv.DictReader(io.StringIO(to_csv(comparison)))
    (line,) = [
        line for line in lines if (line["method"], line["metric"], line["slice"]) == ("IDs", "hr@3", "items: tail")
    ]
    assert (line["mean"], line["std"], line["seeds"]) == ("0.5", "", "2")


def test_the_page_states_protocol_numbers_and_failures(comparison: Comparison) -> None:
    page = to_markdown(comparison)
    assert "- split: users 8:1:1, seed" in page
    assert "- queries: 4 test targets of 2 users" in page
    assert "- ranking: all 1,234 items, without those that the user has seen before" in page
    assert "- similarity: cosine (AlphaFuse, text, both); dot (IDs)" in page
    (line,) = re.findall(r"^\| text .*\|$", page, re.MULTILINE)[:1]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "text",
        "**0.7544**",
        "**0.7500**",
        "0.1111",
        "1",
        "0.5",
        "1",
    ]
    assert re.search(r"^\| broken +\| +failed \| +failed \| +– \| +– \| +– \| +0 \|$", page, re.MULTILINE)
    assert "- broken-1: no texts" in page
    assert "two-sided paired t-test" in page
    assert "Holm" in page
    assert "Not over the same seeds as the others: text (1), both (1); differences are over those that" in page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines[:7]}) == 1  # aligned


def test_the_file_for_programs_has_all_digits(comparison: Comparison) -> None:
    rows = [row for row in csv.DictReader(io.StringIO(to_csv(comparison))) if not row["slice"]]
    assert len(rows) == 5 * 2
    (row,) = [row for row in rows if (row["method"], row["metric"]) == ("IDs", "ndcg@10")]
    estimate = next(row for row in comparison.rows if row.name == "IDs").estimates["ndcg@10"]
    assert [float(row[name]) for name in ("mean", "std", "p_corrected")] == [
        estimate.mean,
        estimate.std,
        estimate.p_corrected,
    ]
    assert next(row for row in rows if row["method"] == "text")["std"] == ""
    failed = [(row["metric"], row["mean"], row["seeds"], row["epochs"]) for row in rows if row["method"] == "broken"]
    assert failed == [("ndcg@10", "", "0", ""), ("hr@3", "", "0", "")]


def test_the_figure_names_rows_and_metrics(comparison: Comparison) -> None:
    figure = dot_plot(comparison)
    assert figure.startswith("<?xml")
    for name in ("AlphaFuse", "IDs", "text", "both", "NDCG@10", "HR@3"):
        assert f">{name}</text>" in figure
    assert ">broken<" not in figure


@pytest.mark.parametrize(("exclude_seen", "said"), [(True, "out"), (False, "in")])
def test_file_and_figure_say_whether_seen_items_were_ranked(
    comparison: Comparison, exclude_seen: bool, said: str
) -> None:
    comparison = dataclasses.replace(comparison, exclude_seen=exclude_seen)
    assert {row["seen_items"] for row in csv.DictReader(io.StringIO(to_csv(comparison)))} == {said}
    assert f"Seen items left {said}" in dot_plot(comparison)


def test_without_any_result_the_failures_are_left(tmp_path: Path) -> None:
    grid = GridConfig(base="b", workspace="w", methods=({"name": "x"},))
    comparison = gather(grid, {"x": tiny_config(tmp_path)}, {"x": {}}, {"x-22": "no memory"})
    assert "- x-22: no memory" in to_markdown(comparison)
    assert [row["mean"] for row in csv.DictReader(io.StringIO(to_csv(comparison)))] == ["", ""]
    assert "<svg" in dot_plot(comparison)
