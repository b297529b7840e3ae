"""The whole road through the command line, as a user goes it: made-up data, all stages, again, by hand, interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.engine

COMMAND = [sys.executable, "-c", "from cluster.cli.main import main; main()"]
SETTINGS = ["--set", "train.max_epochs=2", "--set", "ray.num_cpus=2", "--set", "train.resources.workers=2"]
STAGES = ["prepare", "embed", "decompose", "train", "evaluate", "recommend", "export", "report"]
TIMEOUT_SECONDS = 600


def alphafuse(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    done = alphafuse("synth", str(folder), "--items", "3000", "--users", "400", "--dim", "16")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def finished(data: Path) -> tuple[Path, str]:
    """A finished run: its configuration and what it printed."""
    config = data / "config.yaml"
    done = alphafuse("run", str(config), *SETTINGS)
    assert done.returncode == 0, done.stderr
    return config, done.stdout


def test_all_stages_run_and_the_results_are_told(finished: tuple[Path, str]) -> None:
    config, output = finished
    assert re.findall(r"^✓ (\w+) .* s  ", output, re.MULTILINE) == STAGES
    assert re.search(r"NDCG( +0\.\d{4}){5}", output)
    page = Path(re.search(r"^report +(.+)$", output, re.MULTILINE)[1])  # type: ignore[index]
    assert page.read_text().startswith("<!doctype html>")
    users = pq.read_table(config.parent / "run" / "recommendations" / "part-00000.parquet")
    assert users.num_rows == 400


def test_a_second_run_has_nothing_to_do(finished: tuple[Path, str]) -> None:
    done = alphafuse("run", str(finished[0]), *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^✓ (\w+) +— +done before", done.stdout, re.MULTILINE) == STAGES
    assert re.search(r"NDCG( +0\.\d{4}){5}", done.stdout)


def test_recommendations_for_a_history_by_hand(finished: tuple[Path, str]) -> None:
    config, output = finished
    history = re.search(r'--history "(.+)"', output)[1]  # type: ignore[index]
    done = alphafuse("recommend", str(config), *SETTINGS, "--history", history, "--top-k", "3")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if line.strip()][-3:] == ["1", "2", "3"]
    for title in history.split(","):
        assert title not in done.stdout.split("\n", 1)[1]  # seen already


def test_what_was_made_from_other_settings_is_refused(finished: tuple[Path, str]) -> None:
    done = alphafuse("run", str(finished[0]), *SETTINGS, "--set", "train.learning_rate=0.5")
    assert done.returncode == 1
    assert "train.learning_rate: 0.003 → 0.5" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_says_so(data: Path, finished: tuple[Path, str], number: signal.Signals) -> None:
    other = data / f"other-{number.name}"
    changed = ["--set", "train.max_epochs=2000", "--set", f"workspace={other}"]
    arguments = ["run", str(finished[0]), *SETTINGS, *changed]
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + TIMEOUT_SECONDS
    checkpoints = other / "checkpoints"
    while not (checkpoints.exists() and list(checkpoints.iterdir())):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert "interrupted; the same command, without --redo, continues where it stopped" in errors
    assert process.returncode == 130
