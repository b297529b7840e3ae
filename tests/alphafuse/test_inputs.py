"""Checks of what a run reads: every kind of fault, with the message that the stage itself gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alphafuse.config import DataConfig, parse_config
from alphafuse.data.importers import parquet, source
from alphafuse.data.preparation.sources import find_checked
from alphafuse.errors import AlphafuseError
from alphafuse.inputs import check_inputs, inputs_of
from alphafuse.stages import EMBED, EVALUATE, PREPARE, RECOMMEND, STAGES, Stage

ITEMS = {"item_id": ["a", "b", "c"], "text": ["A", "B", "C"], "flags": [[1], [2], [3]]}
LOG = {"user_id": ["u", "u", "v"], "item_id": ["a", "b", "c"], "timestamp": [1.5, 2.5, 3.5]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(pa.table(ITEMS), tmp_path / "items.parquet")
    pq.write_table(pa.table(LOG), tmp_path / "log.parquet")
    pq.write_table(pa.table({"user_id": ["u"], "split": ["train"]}), tmp_path / "splits.parquet")
    pq.write_table(pa.table({"user_id": ["u"], "history": [["a"]]}), tmp_path / "users.parquet")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(6, np.float32)), 2)
    pq.write_table(pa.table({"item_id": ["a", "b", "c"], "embedding": vectors}), tmp_path / "vectors.parquet")
    return tmp_path


def _check(folder: Path, stages: tuple[Stage, ...] = STAGES, **sections: Any) -> dict[str, list[str]]:
    """Names of the files that are found, by key."""
    data = {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}, **sections.pop("data", {})}
    tree = {"workspace": str(folder / "run"), "data": {"folder": str(folder), **data}, **sections}
    found = check_inputs(parse_config(tree), stages)
    return {key: [Path(source.uri).name for source in sources] for key, sources in found.items()}


def test_everything_that_the_stages_read_is_found(folder: Path) -> None:
    sections = {
        "data": {"split": {"kind": "file", "path": "splits.parquet"}},
        "embed": {"engine": "precomputed", "precomputed": "vectors.parquet"},
        "recommend": {"users": str(folder / "users.parquet")},
    }
    found = _check(folder, **sections)
    assert found == {
        "data.catalog.path": ["items.parquet"],
        "data.interactions.path": ["log.parquet"],
        "data.split.path": ["splits.parquet"],
        "embed.precomputed": ["vectors.parquet"],
        "recommend.users": ["users.parquet"],
    }
    assert [*_check(folder, (EMBED, EVALUATE), **sections)] == ["embed.precomputed"]
    assert _check(folder, (EVALUATE,), **sections) == {}
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"catalog": {"path": "item.parquet"}}}, r"data\.catalog\.path: there is no file or folder"),
        ({"data": {"catalog": {"path": "items.parquet", "item_id": "id"}}}, r"items\.parquet has no column 'id'"),
        ({"data": {"catalog": {"path": "items.parquet", "text": "{txt}"}}}, "no column 'txt'; did you mean 'text'"),
        (
            {"data": {"catalog": {"path": "items.parquet", "text": "{text"}}},
            r"data\.catalog\.text: .* is not a template",
        ),
        ({"data": {"catalog": {"path": "items.parquet", "title": "name"}}}, "has no column 'name'"),
        ({"data": {"catalog": {"path": "items.parquet", "item_id": "flags"}}}, "'flags' must hold ids"),
        ({"data": {"interactions": {"path": "log.parquet", "timestamp": "item_id"}}}, "'item_id' must hold timestamps"),
        ({"data": {"interactions": {"path": "log.parquet", "user_id": "timestamp"}}}, "not whole numbers"),
        ({"data": {"interactions": {"path": "*.csv"}}}, r"data\.interactions\.path: no files match"),
        (
            {"data": {"interactions": {"path": "log.parquet", "timestamp": None}, "split": {"kind": "temporal"}}},
            r"temporal needs data\.interactions\.timestamp",
        ),
        ({"data": {"split": {"kind": "file", "path": "log.parquet"}}}, "has no column 'split'"),
        ({"embed": {"engine": "precomputed", "precomputed": "items.parquet"}}, "has no column 'embedding'"),
        (
            {
                "embed": {
                    "engine": "precomputed",
                    "precomputed": "items.parquet",
                    "precomputed_vector_column": "flags",
                }
            },
            "must be lists of floats",
        ),
        ({"embed": {"model": "./no-model"}}, r"embed\.model .* holds no config\.json"),
        ({"recommend": {"users": "none.parquet"}}, r"recommend\.users: there is no file"),
    ],
)
def test_faults_are_told(folder: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(AlphafuseError, match=message):
        _check(folder, **{"embed": {"model": "hub/name"}, **sections})


def test_users_are_listed_with_or_without_histories(folder: Path) -> None:
    users = {"users": str(folder / "log.parquet")}
    assert _check(folder, (RECOMMEND,), recommend=users) == {"recommend.users": ["log.parquet"]}
    pq.write_table(pa.table({"user_id": ["u"], "history": ["a b"]}), folder / "users.parquet")
    with pytest.raises(AlphafuseError, match="column 'history' must hold lists of item ids"):
        _check(folder, (RECOMMEND,), recommend={"users": str(folder / "users.parquet")})


def test_only_the_first_rows_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = parquet.read

    def first_rows(*arguments: Any) -> Iterator[pa.Table]:
        yield next(read(*arguments))
        pytest.fail("more was read")

    monkeypatch.setattr(parquet, "read", first_rows)
    assert [*_check(folder, (PREPARE,))] == ["data.catalog.path", "data.interactions.path"]


def test_a_check_hashes_nothing_and_lists_a_folder_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hash(*_: Any) -> None:
        raise AssertionError("the whole file is read")

    listed: list[str] = []
    list_files = source.matching_files
    monkeypatch.setattr(source.hashlib, "file_digest", no_hash)
    monkeypatch.setattr(source, "matching_files", lambda base, *rest: listed.append(base) or list_files(base, *rest))
    _check(folder, data={"catalog": {"path": "items*"}}, embed={"engine": "precomputed", "precomputed": "vectors*"})
    assert listed == [str(folder), str(folder)]
    monkeypatch.undo()
    monkeypatch.setattr(source, "matching_files", lambda base, *rest: listed.append(base) or list_files(base, *rest))
    data = DataConfig(folder=str(folder), catalog={"path": "items*"}, interactions={"path": "log*"})
    found = find_checked(data)
    assert len(listed) == 4
    assert all("identity" in vars(each) for each in (*found.catalog, *found.interactions))


def test_of_many_files_some_are_opened_the_last_among_them(folder: Path) -> None:
    (folder / "log").mkdir()
    for number in range(40):
        name = "time" if number == 39 else "timestamp"
        table = pa.table(LOG).rename_columns(["user_id", "item_id", name])
        pq.write_table(table, folder / "log" / f"part-{number}.parquet")
    with pytest.raises(AlphafuseError, match=r"part-39\.parquet has no column 'timestamp'"):
        _check(folder, (PREPARE,), data={"interactions": {"path": "log"}})


def test_inputs_say_where_they_lie(folder: Path) -> None:
    data = {"catalog": {"path": "s3://bucket/items.parquet"}, "interactions": {"path": "package://shop/log.csv"}}
    tree = {"workspace": "x", "data": {"folder": str(folder), **data}, "recommend": {"users": "/users.csv"}}
    found = {each.key: each.uri for each in inputs_of(parse_config(tree), (PREPARE, RECOMMEND))}
    assert found == {
        "data.catalog.path": "s3://bucket/items.parquet",
        "data.interactions.path": "package://shop/log.csv",
        "recommend.users": "/users.csv",
    }
