"""The settings that are shown of a run are those that its results were made with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.stages import EVALUATE, TRAIN
from monitoring.run_log.made_with import made_with
from monitoring.run_log.reader import RunReader


def test_a_configuration_that_has_made_nothing_yet_changes_nothing_that_is_shown(tmp_path: Path) -> None:
    config, workspace = tiny_config(tmp_path), tiny_workspace(tmp_path)
    workspace.artifact("model").commit(TRAIN.inputs(config, workspace))
    workspace.artifact("evaluation").commit(EVALUATE.inputs(config, workspace))
    other = tiny_config(tmp_path, learning_rate=0.5, monitor="hr@5").model_dump(mode="json")
    other |= {"seed": 99, "evaluate": {**other["evaluate"], "exclude_seen": not config.evaluate.exclude_seen}}
    workspace.folder.write_bytes("config.yaml", yaml.safe_dump(other).encode())
    run = RunReader("run", workspace.folder.uri).read()
    assert run.settings == config.model_dump(mode="json")
    assert run.monitor == "ndcg@20"
    workspace.artifact("evaluation").clear()
    workspace.artifact("model").clear()
    assert RunReader("run", workspace.folder.uri).read().settings == other


@pytest.mark.parametrize("settings", [{}, {"train": 3, "model": ["x"], "evaluate": None}])
def test_sections_that_are_none_are_empty(tmp_path: Path, settings: dict[str, object]) -> None:
    shown = made_with(settings, tiny_workspace(tmp_path))
    assert [shown[name] for name in ("decompose", "model", "train", "evaluate", "recommend")] == [{}] * 5
