"""A comparison as Markdown, CSV and a figure, against hand-made evaluations."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from pathlib import Path

import pytest
from support.workspaces.compared_methods import comparison_without_common_seeds, hand_made_comparison
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import GridConfig
from alphafuse.evaluation.comparison.method_comparison import Comparison, compare_methods
from monitoring.comparison.comparison_table import to_csv, to_markdown
from monitoring.comparison.dot_plot import dot_plot


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return hand_made_comparison(tmp_path)


def test_rows_without_a_common_seed_have_no_differences(tmp_path: Path) -> None:
    page = to_markdown(comparison_without_common_seeds(tmp_path))
    assert "## Differences" not in page
    assert "AlphaFuse (1), IDs (2)" in page


def test_slices_are_a_table_of_their_own(comparison: Comparison) -> None:
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
    comparison = compare_methods(grid, {"x": tiny_config(tmp_path)}, {"x": {}}, {"x-22": "no memory"})
    assert "- x-22: no memory" in to_markdown(comparison)
    assert [row["mean"] for row in csv.DictReader(io.StringIO(to_csv(comparison)))] == ["", ""]
    assert "<svg" in dot_plot(comparison)


def test_popularity_is_a_row_without_seeds_that_is_not_tested(tmp_path: Path) -> None:
    page = to_markdown(hand_made_comparison(tmp_path, baseline=[1, 9, 4, 9]))
    mean, *others = re.findall(r"^\| recent popularity .*\|$", page, re.MULTILINE)
    # NDCG@10: 1, 1 / log2(10) twice and 1 / log2(5); HR@3: the first alone
    assert [cell.strip() for cell in mean.split("|")[2:-1]] == ["0.5082", "0.2500", "–", "–", "–", "–"]
    (by_slice,) = others  # and none among the differences
    assert [cell.strip() for cell in by_slice.split("|")[2:-1]] == ["0.3659", "**1.0000**"]
