"""Kept users have the chosen targets, with the histories that they have among all users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.kept_users import KeptUsers
from alphafuse.data.sequences import Sequences, Split

Target = tuple[str, tuple[int, ...], int]
"""User, history and item of a target."""


class Read:
    """All users in groups of three; counts how often they are read."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.sequences = [self._group(number, random) for number in range(4)]
        self.users = np.array([3, 3, 3, 3])
        self.times = 0

    def groups(self) -> Iterator[Sequences]:
        self.times += 1
        yield from self.sequences

    @staticmethod
    def _group(number: int, random: np.random.Generator) -> Sequences:
        lengths = random.integers(4, 9, 3)
        train_end = random.integers(0, 3, 3)
        return Sequences(
            items=random.integers(0, 50, lengths.sum()),
            starts=np.concatenate([[0], np.cumsum(lengths)]),
            train_end=train_end,
            validation_end=train_end + random.integers(0, 3, 3),
            user_ids=pa.chunked_array([[f"user {3 * number + place}" for place in range(3)]]),
            held_out=random.random(lengths.sum()) < 0.2,
            recent_start=train_end,
        )


def _targets(groups: Iterator[Sequences], split: Split) -> list[Target]:
    """Targets one by one, in the order of users and positions."""
    found: list[Target] = []
    for sequences in groups:
        for user, name in enumerate(sequences.user_ids.to_pylist()):
            items = sequences.of(user).tolist()
            begin, end = int(sequences.train_end[user]), int(sequences.validation_end[user])
            bounds = (begin, end) if split == "validation" else (end, len(items))
            found += [(name, tuple(items[:at]), items[at]) for at in range(max(bounds[0], 1), bounds[1])]
    return found


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_chosen_targets_stay_the_same(split: Split, share: float) -> None:
    read = Read()
    every = _targets(read.groups(), split)
    count = max(1, round(share * len(every)))
    chosen = np.sort(np.random.default_rng(1).choice(len(every), count, replace=False))
    kept = KeptUsers(read, split, chosen)
    remaining = _targets(kept.groups(), split)
    assert [remaining[place] for place in kept.chosen] == [every[place] for place in chosen]
    assert {name for name, _, _ in remaining} == {every[place][0] for place in chosen}
    assert kept.users.sum() == len({every[place][0] for place in chosen})


def test_users_are_read_once() -> None:
    read = Read()
    kept = KeptUsers(read, "validation", np.array([0, 2]))
    for _ in range(3):
        assert len(list(kept.groups())) >= 1
    assert read.times == 1


def test_no_target_keeps_no_user() -> None:
    kept = KeptUsers(Read(), "validation", np.zeros(0, np.int64))
    assert (kept.users.sum(), len(kept.chosen), list(kept.groups())) == (0, 0, [])


def test_some_users_of_sequences_are_whole() -> None:
    sequences = Read().sequences[0]
    taken = sequences.take(np.array([2, 0]))
    assert taken.user_ids.to_pylist() == ["user 2", "user 0"]
    for place, user in enumerate((2, 0)):
        np.testing.assert_array_equal(taken.of(place), sequences.of(user))
        part = slice(sequences.starts[user], sequences.starts[user + 1])
        assert sequences.held_out is not None
        assert taken.held_out is not None
        np.testing.assert_array_equal(
            taken.held_out[taken.starts[place] : taken.starts[place + 1]], sequences.held_out[part]
        )
    np.testing.assert_array_equal(taken.train_end, sequences.train_end[[2, 0]])
    np.testing.assert_array_equal(taken.validation_end, sequences.validation_end[[2, 0]])
    assert taken.recent_start is not None
    np.testing.assert_array_equal(taken.recent_start, sequences.train_end[[2, 0]])
