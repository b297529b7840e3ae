"""A third of a minute of `benchmarks.chaos`: kills at random times in all stages, and the same bytes in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SIZES = ["--items", "300", "--users", "400", "--epochs", "10"]
TIMEOUT_SECONDS = 1500


@pytest.mark.engine
@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
def test_a_third_of_a_minute_of_chaos_changes_nothing(tmp_path: Path) -> None:
    result = tmp_path / "chaos.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.chaos",
        "--minutes",
        "0.33",
        "--every",
        "6",
        *SIZES,
        "--json",
        str(result),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    undisturbed, *rounds, total = json.loads(result.read_text())["rows"]
    assert undisturbed["kills survived"] == 0
    assert rounds
    assert total["kills survived"] >= 2
    assert total["files that differ"] == 0
