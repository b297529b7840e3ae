"""Half a minute of `benchmarks.fuzz`: damaged files of users and workspaces end in an error or in the right result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.distributed
def test_half_a_minute_of_damaged_files(tmp_path: Path) -> None:
    result = tmp_path / "fuzz.json"
    command = [sys.executable, "-m", "benchmarks.fuzz", "--minutes", "0.5", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-6000:]
    rows = json.loads(result.read_text())["rows"]
    assert len(rows) == 7
    for row in rows:
        assert row["faults"] == 0
        assert row["right"] > 0
        assert row["refused with a reason"] > 0
