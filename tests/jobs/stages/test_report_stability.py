"""The report of an update says how far the lists have moved from those of the parent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.workspaces.exported_model import exported

from alphafuse.config import Config
from alphafuse.events import ignore
from alphafuse.registry.version_registry import Registry
from alphafuse.serving.recommender import load
from alphafuse.storage.workspace import Workspace
from alphafuse.version_comparison import measure_stability, read_targets
from jobs.stages import report


def test_the_page_and_the_version_tell_the_stability(tmp_path: Path) -> None:
    parent, child = (exported(tmp_path / name, {"history_length": length}) for name, length in (("one", 4), ("two", 2)))
    update = child.update.model_copy(update={"parent": parent.workspace})
    history = {"epoch": 1, "loss": 1.0, "validation": {"ndcg@20": 0.1}, "seconds": 2.0}
    for workspace in (Workspace(parent.workspace), Workspace(child.workspace)):
        model, made = workspace.artifact("model"), workspace.artifact("model").require()
        model.uncommit()
        best, end = {"epoch": 1, "value": 0.1, "step": 1}, {"steps": 1, "world_size": 1, "stopped": "end"}
        model.commit(made.inputs, {"best": best, "history": [history], **end})
    config = child.model_copy(update={"update": update})
    page = _page(config)
    queries = read_targets(Workspace(child.workspace), 10**6)
    stability = measure_stability(load(parent.workspace), load(child.workspace), queries)
    assert 0 < stability.overlap < 1
    for shown in (f"{stability.overlap:.3f}", f"{stability.rank_correlation:.3f}"):
        assert shown in page
    version = Registry(str(tmp_path / "registry")).add(Workspace(child.workspace))
    assert version.stability == pytest.approx(stability.summary())

    shutil.rmtree(parent.workspace)
    assert f"{stability.overlap:.3f}" in _page(config.model_copy(update={"seed": 8}))
    assert "overlap@10" not in _page(child)


def _page(config: Config) -> str:
    report.run(config, Workspace(config.workspace), ignore)
    return Workspace(config.workspace).artifact("report").read_file("index.html").decode()
