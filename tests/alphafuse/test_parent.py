"""Checks of an update before it begins, on manifests that are made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config, parse_config
from alphafuse.errors import ConfigError, UnfinishedError
from alphafuse.parent import check_parent
from alphafuse.stages import TRAIN
from alphafuse.storage.workspace import Workspace

ENCODER = {"engine": "vllm", "dtype": "bfloat16", "max_length": 256, "normalize": True, "storage_dtype": "float16"}


def _parent(folder: Path) -> tuple[Config, Workspace]:
    config, workspace = tiny_config(folder), Workspace(str(folder))
    decompose = config.decompose.result_settings() | {"method": "randomized"}
    for name, inputs in (
        ("catalog", {}),
        ("sequences", {}),
        ("embeddings", {"encoder": ENCODER}),
        ("nullspace", {"decompose": decompose}),
        ("features", {}),
    ):
        workspace.artifact(name).commit(inputs)
    workspace.artifact("model").commit(TRAIN.inputs(config, workspace))
    return config, workspace


def _update(folder: Path, **changes: Any) -> Config:
    tree = tiny_config(folder / "new").model_dump(mode="json")
    tree["update"]["parent"] = str(folder / "old")
    for key, value in changes.items():
        section, name = key.split("__")
        tree[section][name] = value
    return parse_config(tree)


def test_what_does_not_touch_the_weights_may_change(tmp_path: Path) -> None:
    _parent(tmp_path / "old")
    new = Workspace(str(tmp_path / "new"))
    check_parent(_update(tmp_path), new)
    harmless = {"train__learning_rate": 0.5, "decompose__method": "gram", "decompose__seed": 3, "embed__model": "moved"}
    check_parent(_update(tmp_path, **harmless), new)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__history_length": 9}, r"model\.history_length: 4 → 9"),
        ({"model__encoder": {"name": "alphafuse", "fusion": "replace"}}, r"model\.encoder\.fusion: 'add' → 'replace'"),
        ({"decompose__scale": 2.0}, r"decompose\.scale: 3\.0 → 2\.0"),
        ({"decompose__null_dim": 4}, r"decompose\.null_dim: 3 → 4"),
        ({"embed__max_length": 128}, r"embed\.max_length: 256 → 128"),
        ({"embed__dtype": "float32"}, r"embed\.dtype: 'bfloat16' → 'float32'"),
    ],
)
def test_what_cannot_be_carried_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    _parent(tmp_path / "old")
    with pytest.raises(ConfigError, match=f"cannot be continued, since it was made with other settings .*{said}"):
        check_parent(_update(tmp_path, **changes), Workspace(str(tmp_path / "new")))


def test_a_parent_must_be_another_workspace_with_a_model(tmp_path: Path) -> None:
    config, parent = _parent(tmp_path / "old")
    own = config.model_copy(update={"update": config.update.model_copy(update={"parent": str(tmp_path / "old")})})
    with pytest.raises(ConfigError, match=r"update\.parent is the workspace itself"):
        check_parent(own, parent)
    parent.artifact("model").clear()
    with pytest.raises(UnfinishedError, match="holds no finished 'model'"):
        check_parent(_update(tmp_path), Workspace(str(tmp_path / "new")))


def test_the_fingerprint_of_a_model_covers_its_parent_even_after_that_is_gone(tmp_path: Path) -> None:
    _, parent = _parent(tmp_path / "old")
    new, update = Workspace(str(tmp_path / "new")), _update(tmp_path)
    for name in ("sequences", "features"):
        new.artifact(name).commit({})
    inputs = TRAIN.inputs(update, new)
    assert inputs["parent"] == parent.artifact("model").require().fingerprint
    assert "parent" not in TRAIN.inputs(tiny_config(tmp_path / "new"), new)
    new.artifact("model").commit(inputs)
    parent.artifact("model").clear()
    assert TRAIN.inputs(update, new) == inputs
