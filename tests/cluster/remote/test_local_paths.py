"""Paths of a configuration that other machines do not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alphafuse.config import Config, parse_config
from alphafuse.errors import ClusterError
from cluster.remote.local_paths import absolute, local_paths, require_no_local_paths


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
