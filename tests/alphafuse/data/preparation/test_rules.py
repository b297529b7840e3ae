"""Messages about the rows that rules changed or dropped."""

from __future__ import annotations

import pytest

from alphafuse.data.preparation.rules import interaction_warnings, no_training_targets, require_reconciled
from alphafuse.errors import WorkspaceError

TARGETS = {"targets": {"train": 5, "validation": 3, "test": 2}}


def test_users_without_a_time_are_told_where_time_divides() -> None:
    counts = {**TARGETS, "users_without_timestamps": 1200}
    said = "1,200 users have no timestamp in any row: all their interactions train"
    assert list(interaction_warnings(counts, "temporal")) == [said]
    assert list(interaction_warnings(counts, "leave_one_out")) == []
    assert list(interaction_warnings({**TARGETS, "users_without_timestamps": 0}, "temporal")) == []


def test_every_rule_that_met_rows_is_told_with_their_number() -> None:
    counts = {**TARGETS, "duplicates_dropped": 3, "unknown_items_dropped": 2, "unknown_item_examples": ["a", "b"]}
    counts["unknown_item_forms"] = [["in upper case", "b"]]
    first, second = interaction_warnings(counts, "users")
    assert first.startswith(
        "2 interactions are with items that are not in the catalog and are left out (it does not have"
    )
    assert "for example, 'a', 'b'; it has 'b' in upper case: write the ids of catalog and log alike)" in first
    assert second.startswith("3 interactions repeat user, item and timestamp")


def test_a_split_without_targets_is_told() -> None:
    counts = {"targets": {"train": 5, "validation": 0, "test": 2}}
    (said,) = interaction_warnings(counts, "file")
    assert said == "the split (file) leaves no validation targets: there is nothing to measure there"


def test_a_temporal_split_of_equal_times_is_explained() -> None:
    counts = {"users": 6, "interactions": 30}
    said = no_training_targets(counts, "temporal", (1_704_067_200e6, None))
    assert "before its first cut, the time 1704067200000000 (2024-01-01 00:00:00 UTC)" in said
    assert "are all times equal" in said
    assert "a training user needs at least two" in no_training_targets(counts, "file", (None, None))
    assert "with four and more" in no_training_targets(counts, "leave_one_out", (None, None))


def test_rows_that_nobody_counted_are_noticed() -> None:
    counts = {
        "rows_read": 10,
        "interactions": 4,
        "duplicates_dropped": 1,
        "null_user_ids_dropped": 5,
        "out_of_order": 3,
    }
    require_reconciled(counts, "interactions")
    with pytest.raises(WorkspaceError, match="11 rows were read, but 10 are kept or known to be left out"):
        require_reconciled({**counts, "rows_read": 11}, "interactions")
