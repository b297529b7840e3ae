"""Paths of a configuration that other machines do not have."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alphafuse.config import Config, parse_config
from alphafuse.errors import ClusterError, DataError
from alphafuse.stages import STAGES
from cluster.remote.local_paths import absolute, check_reachable_inputs, local_paths, require_no_local_paths


def config(**sections: Any) -> Config:
    tree: dict[str, Any] = {
        "workspace": "s3://bucket/run",
        "data": {
            "folder": "s3://bucket/data",
            "catalog": {"path": "items.parquet"},
            "interactions": {"path": "package://recbole/log.inter"},
        },
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_config(tree)


def test_what_lies_elsewhere_is_within_reach() -> None:
    require_no_local_paths(absolute(config()))
    require_no_local_paths(absolute(config(workspace="file:///srv/run", data={"folder": "file:///srv/data"})))


def test_everything_on_this_machine_is_named_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    asked = config(
        workspace="runs/one",
        data={
            "folder": "data",
            "catalog": {"path": "/srv/items.parquet"},
            "interactions": {"path": "log.csv"},
            "split": {"kind": "file", "path": "split.csv"},
        },
        embed={"engine": "precomputed", "precomputed": "vectors/*.npy", "model": "minilm"},
        recommend={"users": "users.parquet"},
        monitoring={"tensorboard": {"folder": "curves"}, "targets": "targets"},
    )
    expected = {
        "workspace": f"{tmp_path}/runs/one",
        "recommend.users": f"{tmp_path}/users.parquet",
        "monitoring.tensorboard.folder": f"{tmp_path}/curves",
        "data.catalog.path": "/srv/items.parquet",
        "data.interactions.path": f"{tmp_path}/data/log.csv",
        "data.split.path": f"{tmp_path}/data/split.csv",
        "embed.precomputed": f"{tmp_path}/data/vectors/*.npy",
        "embed.model": f"{tmp_path}/minilm",
    }
    moved = absolute(asked)
    assert moved.monitoring.targets == f"{tmp_path}/targets"
    assert local_paths(moved) == expected
    monkeypatch.chdir("/")
    assert local_paths(moved) == expected  # a job runs in another folder
    with pytest.raises(ClusterError, match="files of this machine") as error:
        require_no_local_paths(moved)
    for key, path in expected.items():
        assert f"  {key}: {path}\n" in str(error.value)


def test_names_of_models_are_no_files() -> None:
    assert local_paths(absolute(config(embed={"model": "sentence-transformers/all-MiniLM-L6-v2"}))) == {}


def _parquet(**columns: list[Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """An object store with a catalog and a log."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/shop/items.parquet", _parquet(item_id=["1"], text=["One"]))
    memory.pipe("/shop/log.parquet", _parquet(user_id=["u"], item_id=["1"], timestamp=[5]))
    yield memory
    memory.rm("/shop", recursive=True)


def _in_store(**log: str) -> Config:
    return absolute(config(data={"folder": "memory://shop", "interactions": {"path": "log.parquet", **log}}))


@pytest.mark.usefixtures("store")
def test_sources_in_a_store_that_both_can_read_are_checked() -> None:
    check_reachable_inputs(_in_store(), STAGES)
    with pytest.raises(DataError, match=r"log\.parquet has no column 'customer'"):
        check_reachable_inputs(_in_store(user_id="customer"), STAGES)


def test_sources_that_this_machine_cannot_read_are_left_to_the_job(
    store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_reachable_inputs(absolute(config(data={"folder": "file:///nowhere"})), STAGES)

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError("access denied")

    monkeypatch.setattr(type(store), "info", refused)
    check_reachable_inputs(_in_store(user_id="customer"), STAGES)
