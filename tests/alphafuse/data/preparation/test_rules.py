"""Messages about the rows that rules changed or dropped."""

from __future__ import annotations

from alphafuse.data.preparation.rules import interaction_warnings

TARGETS = {"targets": {"train": 5, "validation": 3, "test": 2}}


def test_users_without_a_time_are_told_where_time_divides() -> None:
    counts = {**TARGETS, "users_without_timestamps": 1200}
    said = "1,200 users have no timestamp in any row: all their interactions train"
    assert list(interaction_warnings(counts, "temporal")) == [said]
    assert list(interaction_warnings(counts, "leave_one_out")) == []
    assert list(interaction_warnings({**TARGETS, "users_without_timestamps": 0}, "temporal")) == []


def test_every_rule_that_met_rows_is_told_with_their_number() -> None:
    counts = {**TARGETS, "duplicates_dropped": 3, "unknown_items_dropped": 2, "unknown_item_examples": ["a", "b"]}
    first, second = interaction_warnings(counts, "users")
    assert first.startswith("2 interactions are with items that are not in the catalog and are left out (items such as")
    assert second.startswith("3 interactions repeat user, item and timestamp")


def test_a_split_without_targets_is_told() -> None:
    counts = {"targets": {"train": 5, "validation": 0, "test": 2}}
    (said,) = interaction_warnings(counts, "file")
    assert said == "the split (file) leaves no validation targets: there is nothing to measure there"
