"""A history by hand is answered without waiting for what it does not need; the answers: see `test_recommend.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.engine
def test_ray_and_its_like_are_not_imported() -> None:
    code = """
import sys, cluster.cli.run_log, jobs.stages.recommend_history
print({"ray", "deepspeed", "datasets", "pandas", "vllm", "transformers"} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
