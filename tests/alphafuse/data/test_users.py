"""Users to recommend to, from a log that is read in several row groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.workspaces.sequence_cases import USERS, write_sequences

from alphafuse.config import SourceConfig
from alphafuse.data import sequence_store, users
from alphafuse.data.importers.source import find_sources
from alphafuse.data.users import Histories
from alphafuse.storage.workspace import Workspace


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_store, "GROUP_USERS", 2)


def _histories(groups: Iterable[Histories]) -> dict[str, list[int]]:
    return {
        group.sequences.user_ids[user].as_py(): group.sequences.of(user).tolist()
        for group in groups
        for user in group.users
    }


def test_users_with_a_test_target(tmp_path: Path) -> None:
    write_sequences(tmp_path, USERS, 1)
    assert _histories(users.test_users(Workspace(str(tmp_path)))) == {
        "user 2": [30, 31, 32],
        "user 3": [40, 41, 42, 43],
    }


def test_all_users_where_none_tests(tmp_path: Path) -> None:
    write_sequences(tmp_path, [(items, len(items)) for items, _ in USERS], 1)
    expected = {f"user {number}": items for number, (items, _) in enumerate(USERS)}
    assert _histories(users.test_users(Workspace(str(tmp_path)))) == expected


def test_named_users_of_all_groups(tmp_path: Path) -> None:
    write_sequences(tmp_path, USERS, 1)
    pq.write_table(pa.table({"user_id": ["user 3", "user 0", "nobody", "user 3"]}), tmp_path / "users.parquet")
    counts: Counter[str] = Counter()
    sources = find_sources("recommend.users", SourceConfig(path=str(tmp_path / "users.parquet")), ".")
    assert list(_histories(users.users_of(Workspace(str(tmp_path)), sources, counts))) == ["user 0", "user 3"]
    assert +counts == {"users_named_before": 1, "users_not_in_the_log": 1}


def test_a_group_divided(tmp_path: Path) -> None:
    write_sequences(tmp_path, [(items, 0) for items, _ in USERS], 4)
    (whole,) = users.test_users(Workspace(str(tmp_path)))
    parts = list(whole.split(3))
    assert [part.users.tolist() for part in parts] == [[0, 1, 2], [3]]
    assert [part.positions.tolist() for part in parts] == [[6, 2, 3], [4]]
