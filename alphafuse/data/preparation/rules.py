"""Messages about rows that were left out or sorted, so that nothing is lost silently.

Works on the counts that `catalog` and `interactions` return.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alphafuse.config import DataConfig
from alphafuse.data.preparation.splits import NAMES

# Name of a count → message on what its rule did.
_CATALOG = {
    "null_ids_dropped": "catalog rows have no item id and are left out",
    "duplicate_ids_dropped": "catalog rows repeat an item id and are left out: the first row of an id counts",
    "duplicates_with_other_text": "of the rows that repeat an item id have another text than its first row",
    "empty_texts": "items have an empty text: they stay, without a language embedding",
}
_INTERACTIONS = {
    "null_user_ids_dropped": "interactions have no user id and are left out",
    "null_item_ids_dropped": "interactions have no item id and are left out",
    "unknown_items_dropped": "interactions are with items that are not in the catalog and are left out",
    "missing_timestamps": "interactions have no timestamp: each gets that of the row before it in its user's log",
    "duplicates_dropped": "interactions repeat user, item and timestamp of another and are left out",
    "out_of_order": "interactions are earlier than the row before them in their user's log: sorted by time",
    "users_with_few_interactions": "users have fewer than data.min_user_interactions interactions and are left out",
    "users_without_split": "users are not named in the file of data.split.path and are left out",
    "split_rows_without_user_id": "rows of the file of data.split.path have no user id and are left out",
    "split_users_unknown": "users of the file of data.split.path have no interactions, or too few",
}


def catalog_warnings(counts: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each rule that applied to rows of the catalog."""
    yield from (f"{counts[name]:,} {message}" for name, message in _CATALOG.items() if counts[name])


def interaction_warnings(counts: Mapping[str, Any], split: str) -> Iterator[str]:
    """A sentence for each rule that applied to rows of the log, and for each split without targets.

    Args:
        split: name of the protocol.
    """
    for name, message in _INTERACTIONS.items():
        if counts.get(name):
            shown = _examples(counts, " (items such as {})") if name == "unknown_items_dropped" else ""
            yield f"{counts[name]:,} {message}{shown}"
    if split == "temporal" and counts.get("users_without_timestamps"):
        yield f"{counts['users_without_timestamps']:,} users have no timestamp in any row: all their interactions train"
    for name in NAMES[1:]:
        if not counts["targets"][name]:
            yield f"the split ({split}) leaves no {name} targets: there is nothing to measure there"


def nothing_left(counts: Mapping[str, Any], data: DataConfig) -> str:
    """Error message for a log without remaining interactions: the number that each rule removed."""
    steps = {
        "null_user_ids_dropped": "without user id",
        "null_item_ids_dropped": "without item id",
        "unknown_items_dropped": "with items that are not in the catalog",
        "duplicates_dropped": "exact duplicates",
        "interactions_of_users_with_few": "of users with fewer than data.min_user_interactions "
        f"({data.min_user_interactions})",
        "interactions_of_users_without_split": "of users without a split (data.split.path)",
    }
    removed = [f"{counts[name]:,} {reason}" for name, reason in steps.items() if counts.get(name)]
    return (
        f"no interactions are left of the {counts['rows_read']:,} in data.interactions.path "
        f"({data.interactions.path}); removed: {'; '.join(removed) or 'none'}"
        f"{_examples(counts, '. Unknown items are, for example, {}: are the ids those of the catalog?')}"
    )


def _examples(counts: Mapping[str, Any], sentence: str) -> str:
    items = counts["unknown_item_examples"]
    return sentence.format(", ".join(map(repr, items))) if items else ""
