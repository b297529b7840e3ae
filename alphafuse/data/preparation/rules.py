"""Messages about rows that were left out or sorted, so that nothing is lost silently.

Works on the counts that `catalog` and `interactions` return.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alphafuse.config import DataConfig
from alphafuse.data.preparation.splits import NAMES, Cuts
from alphafuse.data.preparation.time_units import as_date
from alphafuse.errors import WorkspaceError

_DECOMPOSED = (
    "are written with decomposed accents (Unicode NFD): the same name with composed ones is another {}. Where "
    "both occur, "
    'write all ids in one form (in Python: unicodedata.normalize("NFC", id))'
)
# Name of a count → message on what its rule did.
_CATALOG = {
    "null_ids_dropped": "catalog rows have no item id and are left out",
    "duplicate_ids_dropped": "catalog rows repeat an item id and are left out: the first row of an id counts",
    "duplicates_with_other_text": "of the rows that repeat an item id have another text than its first row",
    "empty_texts": "items have an empty text: they stay, without a language embedding",
    "decomposed_ids": f"item ids {_DECOMPOSED.format('item')}",
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
    "decomposed_user_ids": f"interactions have user ids that {_DECOMPOSED.format('user')}",
}
_REMOVED = {
    "null_user_ids_dropped": "without user id",
    "null_item_ids_dropped": "without item id",
    "unknown_items_dropped": "with items that are not in the catalog",
    "duplicates_dropped": "exact duplicates",
    "interactions_of_users_with_few": "of users with fewer than data.min_user_interactions ({few})",
    "interactions_of_users_without_split": "of users without a split (data.split.path)",
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
            shown = _examples(counts, " (it does not have, for example, {})") if name == "unknown_items_dropped" else ""
            yield f"{counts[name]:,} {message}{shown}"
    if split == "temporal" and counts.get("users_without_timestamps"):
        yield f"{counts['users_without_timestamps']:,} users have no timestamp in any row: all their interactions train"
    for name in NAMES[1:]:
        if not counts["targets"][name]:
            yield f"the split ({split}) leaves no {name} targets: there is nothing to measure there"


def require_reconciled(counts: Mapping[str, Any], kept: str) -> None:
    """Check that every row that was read is either kept or counted by the rule that left it out.

    Args:
        counts: of the catalog or of the log.
        kept: name of the count of rows that are kept.

    Raises:
        WorkspaceError: rows are missing, or there are too many.
    """
    removed = ("null_ids_dropped", "duplicate_ids_dropped", *_REMOVED)
    rows = counts[kept] + sum(counts.get(name, 0) for name in removed)
    if rows != counts["rows_read"]:
        raise WorkspaceError(
            f"{counts['rows_read']:,} rows were read, but {rows:,} are kept or known to be left out",
            "Delete the folder scratch/ of the workspace and run again; if it stays so, please report it.",
        )


def no_training_targets(counts: Mapping[str, Any], split: str, cuts: Cuts) -> str:
    """Error message for a split that leaves nothing to train on.

    Args:
        split: name of the protocol.
        cuts: of a temporal split, the times from which interactions validate and test.
    """
    found = f"among {counts['users']} users with {counts['interactions']} interactions"
    if split == "temporal" and cuts[0] is not None:
        return (
            f"the split (temporal) leaves no training targets {found}: hardly any are before its first cut, the "
            f"time {cuts[0]:.0f}{as_date(cuts[0])}. Interactions of one time are never separated: are all times "
            f"equal, or dates without a time of day? Give a finer column as data.interactions.timestamp, other "
            f"data.split.ratios, or another split"
        )
    needed = (
        "a user trains with two interactions, or with four and more, of which the last two validate and test"
        if split == "leave_one_out"
        else "a training user needs at least two"
    )
    return f"the split ({split}) leaves no training targets {found}; {needed}. Check data.split"


def nothing_left(counts: Mapping[str, Any], data: DataConfig) -> str:
    """Error message for a log without remaining interactions: the number that each rule removed."""
    few = data.min_user_interactions
    removed = [f"{counts[name]:,} {reason.format(few=few)}" for name, reason in _REMOVED.items() if counts.get(name)]
    return (
        f"no interactions are left of the {counts['rows_read']:,} in data.interactions.path "
        f"({data.interactions.path}); removed: {'; '.join(removed) or 'none'}"
        f"{_examples(counts, '. The catalog does not have, for example, {}. Are its ids those of the log?')}"
    )


def unread_message(names: Sequence[str]) -> str:
    """A sentence on what lies beside the sources and is not read."""
    shown = ", ".join(map(repr, names[:5]))
    return (
        f"{len(names):,} files or folders are left out, because no format is known by their names or a glob "
        f"matches files alone: {shown}{', …' if len(names) > 5 else ''}"
    )


def _examples(counts: Mapping[str, Any], sentence: str) -> str:
    """The sentence with unknown items, and ways to write them with which the catalog knows them."""
    items = counts["unknown_item_examples"]
    shown = ", ".join(map(repr, items))
    forms = [f"{item!r} {form}" for form, item in counts["unknown_item_forms"]]
    if forms:
        shown += f"; it has {', and '.join(forms)}: write the ids of catalog and log alike"
    return sentence.format(shown) if items else ""
