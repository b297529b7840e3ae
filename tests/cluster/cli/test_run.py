"""Whole runs by the command line: all stages, run again, stage by stage, interrupted."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.processes.waiting import wait_until
from support.servers.watched_run import COMMAND, WatchedRun

from alphafuse.data.popularity import load_popularity
from alphafuse.serving.export_files import Export
from alphafuse.serving.exported_items import ExportedItems
from alphafuse.storage.workspace import Workspace

pytestmark = pytest.mark.engine

STAGES = ["prepare", "embed", "decompose", "train", "evaluate", "recommend", "export", "report"]
TIMEOUT_SECONDS = 600


def alphafuse(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)


def test_all_stages_run_and_the_results_are_told(watched_run: WatchedRun) -> None:
    output = watched_run.output
    assert re.findall(r"^✓ (\w+) .* s  ", output, re.MULTILINE) == STAGES
    assert re.search(r"NDCG( +0\.\d{4}){5}", output)
    page = Path(re.search(r"^report +(.+)$", output, re.MULTILINE)[1])  # type: ignore[index]
    assert page.read_text().startswith("<!doctype html>")
    users = pq.read_table(watched_run.workspace / "recommendations" / "part-00000.parquet")
    assert users.num_rows == 943


def test_a_second_run_has_nothing_to_do(watched_run: WatchedRun) -> None:
    done = alphafuse("run", *watched_run.arguments)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^✓ (\w+) +— +done before", done.stdout, re.MULTILINE) == STAGES
    assert re.search(r"NDCG( +0\.\d{4}){5}", done.stdout)


def test_the_suggested_command_shows_recommendations_for_popular_items(watched_run: WatchedRun) -> None:
    """The suggestion is run by a shell, as a user would paste it."""
    suggested = re.search(r"^try +(.+)$", watched_run.output, re.MULTILINE)[1]  # type: ignore[index]
    words = shlex.split(suggested)
    assert words[1:-2] == ["recommend", *watched_run.arguments]
    assert words[-2] == "--history"
    history = words[-1]
    workspace = Workspace(str(watched_run.workspace))
    counts = load_popularity(workspace)
    items = ExportedItems(Export.find(workspace.folder.uri).names()).find(history.split(","))
    assert sorted(items) == sorted(np.argsort(-counts, kind="stable")[:2].tolist())
    command = shlex.join([*COMMAND, *words[1:], "--top-k", "3"])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr
    table = done.stdout.split("\n", 1)[1]
    assert [line.split()[0] for line in table.splitlines() if line.strip()][-3:] == ["1", "2", "3"]
    for title in history.split(","):
        assert title not in table  # seen already


def test_what_was_made_from_other_settings_is_refused(watched_run: WatchedRun, tmp_path: Path) -> None:
    unseen = ["--set", f"monitoring.targets={tmp_path}"]  # the Prometheus that goes on would alert of the failure
    done = alphafuse("run", *watched_run.arguments, *unseen, "--set", "train.learning_rate=0.5")
    assert done.returncode == 1
    assert "train.learning_rate: 0.003 → 0.5" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def endless(watched_run: WatchedRun, tmp_path: Path) -> tuple[Path, list[str]]:
    """A copy of the run's workspace before its training, and the arguments of a training that does not end."""
    workspace = tmp_path / "run"
    made_later = shutil.ignore_patterns("model", "evaluation", "recommendations", "export", "report", "events", "logs")
    shutil.copytree(watched_run.workspace, workspace, ignore=made_later)
    changed = {
        "workspace": workspace,
        "monitoring.targets": workspace.parent,
        "train.max_steps": 100_000,
        "train.max_epochs": 2000,
        "train.patience": 2000,
        "train.checkpoint_steps": 5,
    }
    settings = [part for key, value in changed.items() for part in ("--set", f"{key}={value}")]
    return workspace, [*watched_run.arguments, *settings]


def test_a_terminated_training_says_so(endless: tuple[Path, list[str]]) -> None:
    """Ray sets a handler of SIGTERM of its own; Ctrl-C: tests/cluster/cli/test_cli.py."""
    workspace, arguments = endless
    checkpoints = workspace / "checkpoints"
    process = subprocess.Popen(
        [*COMMAND, "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: list(checkpoints.glob("*")), TIMEOUT_SECONDS, process)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()  # it would go on for hours
    assert "interrupted; the same command, without --redo, continues where it stopped" in errors
    assert process.returncode == 130
