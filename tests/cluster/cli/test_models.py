"""The commands `alphafuse models …` on two days of a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.processes.gloo_workers import without_ray
from support.workspaces.exported_model import exported
from support.workspaces.tiny_workspace import tiny_config
from typer.testing import CliRunner, Result

from alphafuse.events import ignore
from alphafuse.registry.version_registry import Registry
from alphafuse.storage.workspace import Workspace
from cluster.cli import running
from cluster.cli.main import app
from jobs.stages import evaluate


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("days")
    for name, length in (("one", 4), ("two", 2), ("three", 1)):
        config = exported(folder / name, {"history_length": length})
        with without_ray():
            evaluate.run(config, Workspace(config.workspace), ignore)
    return folder


def _models(days: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments], env={"ALPHAFUSE_REGISTRY": str(days / "registry")})


def test_days_come_and_go(days: Path) -> None:
    assert "has no versions" in _models(days, "list").output
    assert _models(days, "add", str(days / "one")).output.startswith("v0001 ")
    assert _models(days, "promote").output == "v0001 serves\n"
    assert _models(days, "add", str(days / "two")).output.startswith("v0002 ")
    compared = _models(days, "compare").output
    assert all(part in compared for part in ("test targets of 3 users", "ndcg@10", "overlap@10", "rank correlation"))
    metrics = [Registry(str(days / "registry")).version(name).metrics["ndcg@10"] for name in ("v0001", "v0002")]
    worse = metrics[1] < metrics[0]
    refused = _models(days, "promote", "--max-drop", "0")
    assert refused.exit_code == worse
    if worse:
        assert "v0002 is not promoted" in refused.output
        assert _models(days, "promote", "v0002", "--max-drop", "1").exit_code == 0
    listed = _models(days, "list").output.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["v0001", "previous"], ["v0002", "production"]]
    assert "fingerprint" in _models(days, "show", "production").output
    assert _models(days, "rollback").output == "v0001 serves\n"
    _models(days, "add", str(days / "three"))
    assert "v0002 would be removed" in _models(days, "gc", "--keep", "1", "--dry-run").output
    assert (days / "two").exists()
    assert "v0002 removed" in _models(days, "gc", "--keep", "1").output
    assert not (days / "two").exists()
    assert _models(days, "list").output.splitlines()[2].split()[:2] == ["v0002", "removed"]
    error = _models(days, "promote", "v0002")
    assert (error.exit_code, "v0002 was removed" in error.output) == (1, True)


def test_what_comes_back_at_once_imports_nothing_heavy() -> None:
    code = (
        "import sys, alphafuse.registry.version_registry, cluster.cli.version_tables; "
        "print({'torch', 'ray', 'scipy'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_an_update_continues_a_version(days: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parents: list[str | None] = []
    monkeypatch.setattr(running, "run_with_progress", lambda config, *_, **__: parents.append(config.update.parent))
    registry = Registry(str(days / "updates"))
    version = registry.add(Workspace(str(days / "one")))
    registry.promote(version.id, None)
    path = days / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_config(days / "next").model_dump(mode="json")))
    for parent, more in (("production", ["--set", f"registry={days / 'updates'}"]), ("v0001", []), ("runs/old", [])):
        result = CliRunner().invoke(app, ["update", str(path), "--from", parent, *more])
        assert result.exit_code == 0, result.output
    assert parents == [str(days / "one"), os.path.abspath("v0001"), os.path.abspath("runs/old")]
    assert _models(days / "none", "path", "v0001").exit_code == 1
    path_of = CliRunner().invoke(app, ["models", "path", "production", "--registry", str(days / "updates")])
    assert path_of.output == f"{days / 'one'}\n"
