"""Every benchmark that the documentation names can be started."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_benchmark_in_the_documentation_has_a_command() -> None:
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "Makefile"]
    named = {name for page in pages for name in re.findall(r"python -m (benchmarks\.\w+)", page.read_text())}
    assert {"benchmarks.metric_cost", "benchmarks.training_runs", "benchmarks.million"} <= named
    for name in sorted(named):
        assert callable(importlib.import_module(name).main)
