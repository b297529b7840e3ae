"""Splits interactions into train, validation and test: one function per protocol.

Each returns `train_end` and `validation_end` of each user (docs/workspace.md), from the user's own data and from cuts
that are the same for all users. Knows nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.data.hashing import hash_ids
from alphafuse.data.importers.columns import as_ids, as_text
from alphafuse.data.importers.source import Source
from alphafuse.data.sequences import ranges
from alphafuse.errors import DataError

NAMES = ("train", "validation", "test")
SPLIT_COLUMNS = ("user_id", "split")
"""Columns of the file of `kind: file`."""
Ends = tuple[np.ndarray, np.ndarray]
Cuts = tuple[float | None, float | None]


def cuts_by_ratios(values: np.ndarray, ratios: tuple[float, float, float]) -> Cuts:
    """Values at which the second and the third part begin; None: that part is empty.

    Of the n sorted values, the first round(n · share) are the first part, and so on. Equal values are never separated:
    all of them belong to the later part.
    """
    shares = np.cumsum(ratios)[:2] / sum(ratios)
    first, second = (int(np.floor(len(values) * share + 0.5)) for share in shares)
    wanted = [rank for rank in (first, second) if rank < len(values)]
    found = np.partition(values, wanted) if wanted else values
    return (
        found[first].item() if first < len(values) else None,
        found[second].item() if second < len(values) else None,
    )


def split_users(keys: np.ndarray, lengths: np.ndarray, cuts: Cuts) -> Ends:
    """Split whole users at random (the cold-start protocol): a user's part follows from a hash of seed and user id.

    Args:
        keys: uint64 [users], the hashes.
        lengths: [users], number of interactions of each user.
        cuts: cuts of the keys of all users.
    """
    train, not_test = _before(keys, cuts[0]), _before(keys, cuts[1])
    return np.where(train, lengths, 0), np.where(not_test, lengths, 0)


def split_leave_one_out(lengths: np.ndarray) -> Ends:
    """Test on the last item of a user, validate on the one before; users with fewer than 3 interactions only train."""
    long_enough = lengths >= 3
    return np.where(long_enough, lengths - 2, lengths), np.where(long_enough, lengths - 1, lengths)


def split_temporal(times: np.ndarray, lengths: np.ndarray, cuts: Cuts) -> Ends:
    """Split at two points in time: interactions before the first train, up to the second validate, later test.

    Args:
        times: [interactions], user after user, ascending for each user; NaN for users without timestamps, who train.
        lengths: [users], number of interactions of each user.
        cuts: cuts of the times of all interactions.
    """
    train_end, validation_end = (ends_at(times, lengths, cut) for cut in cuts)
    return train_end, validation_end


def ends_at(times: np.ndarray, lengths: np.ndarray, cut: float | None) -> np.ndarray:
    """Number of each user's interactions before a time, [users]; all of those without a time. The arguments are those
    of `split_temporal`."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(users[_before(times, cut) | np.isnan(times)], minlength=len(lengths))


def split_by_file(parts: np.ndarray, lengths: np.ndarray) -> Ends:
    """Split whole users by the parts that a file assigns.

    Args:
        parts: [users], 0: train, 1: validation, 2: test.
    """
    return np.where(parts == 0, lengths, 0), np.where(parts <= 1, lengths, 0)


def cold_items(keys: np.ndarray, share: float) -> np.ndarray:
    """Choose the items that no model may learn from, bool [items]: the round(items · share) with the smallest keys.

    Args:
        keys: uint64 [items], hashes of seed and item id.
    """
    cut, _ = cuts_by_ratios(keys, (share, 1 - share, 0))
    return _before(keys, cut)


def held_out_positions(
    items: np.ndarray, lengths: np.ndarray, train_end: np.ndarray, cold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the positions before `train_end` that do not train because their item is cold.

    Args:
        items: [interactions], user after user.
        lengths, train_end: [users].
        cold: [items] of bool.

    Returns:
        The positions within each user's sequence, user after user; and the number of them for each user, [users].
    """
    users = np.repeat(np.arange(len(lengths)), lengths)
    positions = ranges(np.zeros_like(lengths), lengths)
    held_out = cold[items] & (positions < train_end[users])
    return positions[held_out], np.bincount(users[held_out], minlength=len(lengths))


@dataclass(frozen=True)
class UserParts:
    """The part that a file assigns to each user; needs 9 bytes per user.

    Attributes:
        hashes: uint64 [users], hashes of the user ids, ascending.
        parts: int8 [users], 0: train, 1: validation, 2: test.
        null_ids: number of rows without a user id, which were left out.
    """

    hashes: np.ndarray
    parts: np.ndarray
    null_ids: int

    def contain(self, user_ids: pa.Array) -> np.ndarray:
        """Mask of the users that the file names: bool [users]."""
        return self.lookup(user_ids) >= 0

    def lookup(self, user_ids: pa.Array) -> np.ndarray:
        """Part of each user, −1 for users that the file does not name: int8 [users]."""
        hashes = hash_ids(user_ids)
        position = np.searchsorted(self.hashes, hashes)
        position[position == len(self.hashes)] = 0
        return np.where(self.hashes[position] == hashes, self.parts[position], -1).astype(np.int8)


def split_rows(table: pa.Table, where: str) -> tuple[pa.Array, pa.Array]:
    """Convert rows of the file of a split: user ids, null where missing, and parts, int32.

    Raises:
        DataError: a column is ill-typed, or a split has another name.
    """
    ids = as_ids(table["user_id"], where, "user_id")
    names = as_text(table["split"], where, "split")
    part = pc.index_in(names, pa.array(NAMES))
    if part.null_count:
        wrong = names.filter(part.is_null())[0].as_py()
        raise DataError(f"{where}: the column 'split' holds {wrong!r}; it must be one of {', '.join(NAMES)}")
    return ids, part


def read_user_parts(sources: Iterable[Source]) -> UserParts:
    """Read the columns user_id and split.

    Raises:
        DataError: a column is missing, a split has another name, a user is in two splits, or there are no users.
    """
    hashes, parts, null_ids = [], [], 0
    for source in sources:
        for table in source.read(SPLIT_COLUMNS):
            ids, part = split_rows(table, source.uri)
            null_ids += ids.null_count
            hashes.append(hash_ids(ids.drop_null()))
            parts.append(part.filter(ids.is_valid()).to_numpy().astype(np.int8))
    keys, values = np.concatenate([np.zeros(0, np.uint64), *hashes]), np.concatenate([np.zeros(0, np.int8), *parts])
    if not len(keys):
        raise DataError("the file of data.split.path names no users")
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    same = keys[1:] == keys[:-1]
    contradictions = int((same & (values[1:] != values[:-1])).sum())
    if contradictions:
        raise DataError(f"the file of data.split.path puts {contradictions} users into two splits; name each once")
    kept = np.concatenate([[True], ~same])
    return UserParts(keys[kept], values[kept], null_ids)


def num_targets(
    lengths: np.ndarray, train_end: np.ndarray, validation_end: np.ndarray, num_held_out: np.ndarray | int = 0
) -> dict[str, np.ndarray]:
    """Number of targets of each user in each split, [users] each; the first item of a user is never a target.

    Args:
        num_held_out: [users], number of positions before `train_end` that do not train.
    """
    bounds = [np.ones_like(lengths), train_end, validation_end, lengths]
    starts = [np.maximum(bound, 1) for bound in bounds]
    stops = [train_end - num_held_out, *bounds[2:]]
    return {name: np.maximum(stop - start, 0) for name, start, stop in zip(NAMES, starts[:3], stops, strict=True)}


def _before(values: np.ndarray, cut: float | None) -> np.ndarray:
    return np.ones(len(values), bool) if cut is None else values < cut
