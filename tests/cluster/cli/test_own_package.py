"""The encoder and the backbone of docs/methods.md, from the command line and on two ranks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from support.workspaces.own_package import OWN_MODEL, write_own_package
from support.workspaces.tiny_workspace import HIDDEN_DIM, NUM_ITEMS, tiny_config, tiny_workspace

COMMAND = "from cluster.cli.main import main; main()"
STAGES = """
import sys
from alphafuse.config import load_config
from alphafuse.events import ignore
from alphafuse.stages import EVALUATE, EXPORT, TRAIN
from alphafuse.storage.workspace import Workspace
from jobs.execution.ray_connection import connected
from jobs.execution.worker_group import keeping_ranks
from jobs.pipeline import run_stages

config = load_config(sys.argv[1])
with connected(config.ray), keeping_ranks():
    run_stages(config, Workspace(config.workspace), [TRAIN, EVALUATE, EXPORT], ignore)
"""
"""Stages of a run in one Ray; `alphafuse run` would begin with those that the hand-made workspace stands for."""


def _python(code: str, *arguments: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = [str(packages)] if packages else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(Path(__file__).parents[3])])}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def _alphafuse(*arguments: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    return _python(COMMAND, *arguments, packages=packages)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a workspace in which the stages before training have finished."""
    write_own_package(tmp_path)
    tiny_workspace(tmp_path / "run")
    tree = tiny_config(tmp_path / "run", workers=2).model_dump(mode="json")
    tree["model"] |= OWN_MODEL
    tree["ray"]["num_cpus"] = 2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "config.yaml"


@pytest.mark.engine
def test_settings_of_ones_own_are_shown_and_checked(config: Path, tmp_path: Path) -> None:
    shown = _alphafuse("config", "show", str(config), packages=tmp_path)
    assert {key: yaml.safe_load(shown.stdout)["model"][key] for key in OWN_MODEL} == OWN_MODEL
    wrong = _alphafuse("config", "validate", str(config), "--set", "model.backbone.decai=0.5", packages=tmp_path)
    assert wrong.returncode == 1
    assert "model.backbone.decai: unknown key; did you mean 'model.backbone.decay'?" in wrong.stderr
    absent = _alphafuse("config", "validate", str(config))
    assert absent.returncode == 1
    assert "cannot import 'shop.encoders:TextPlusId' (No module named 'shop')" in absent.stderr
    assert "Traceback" not in absent.stderr


@pytest.mark.engine
def test_a_package_of_ones_own_is_trained_evaluated_and_exported_on_two_ranks(config: Path, tmp_path: Path) -> None:
    done = _python(STAGES, str(config), packages=tmp_path)
    assert done.returncode == 0, done.stderr
    model = json.loads((tmp_path / "run" / "model" / "manifest.json").read_text())
    assert model["details"]["world_size"] == 2
    description = json.loads((tmp_path / "run" / "export" / "model.json").read_text())
    assert {key: description[key] for key in OWN_MODEL} == OWN_MODEL
    vectors = pq.read_table([*(tmp_path / "run" / "export").glob("items-*.parquet")])["vector"].to_pylist()
    assert [len(vector) for vector in vectors] == [HIDDEN_DIM] * NUM_ITEMS
    loaded = _alphafuse("recommend", str(config), "--history", "item 1", "--top-k", "2", packages=tmp_path)
    found = re.findall(r"^ \d +(item \d+) +(item \d+) ", loaded.stdout, re.MULTILINE)  # titles and ids
    assert len(found) == 2, loaded.stdout + loaded.stderr
