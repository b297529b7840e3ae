"""Waiting times on small data: the quick start stage by stage, and the commands that need no cluster.

    python -m benchmarks.startup --json benchmarks/results/startup.json

The quick start runs into a new folder, as a new user would see it; what its stages take is read from its event log, and
"between stages" is the rest: start of the command, of Ray and of the ranks, and their end. The commands follow, and
loading the model from Python, each `--repeat` times in a process of its own: medians of wall and processor time, which
other programs on the machine disturb less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common.tables import arguments, publish
from cluster.cli.run_tables import read_run

COMMAND = [sys.executable, "-c", "from cluster.cli.main import main; main()"]
LOAD = [sys.executable, "-c", "import sys, alphafuse; alphafuse.load(sys.argv[1])"]


def run(command: list[str]) -> tuple[float, float]:
    """Wall time and processor time of a command in seconds; its output is dropped.

    Raises:
        RuntimeError: it failed; the message is what it wrote to its errors.
    """
    before, started = _processor_seconds(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} ended with {done.returncode}: {done.stderr}")
    return time.monotonic() - started, _processor_seconds() - before


def quick_start(config: str, folder: str) -> list[dict[str, Any]]:
    """A row for each stage of a whole run into `folder`, and for the whole."""
    wall, processor = run([*COMMAND, "run", config, "--set", f"workspace={folder}"])
    stages = {stage.name: stage.seconds or 0.0 for stage in read_run(folder).state(time.time()).stages}
    between = wall - sum(stages.values())
    parts = [{"what": f"quick start: {name}", "s": seconds, "CPU-s": None} for name, seconds in stages.items()]
    return [
        *parts,
        {"what": "quick start: between stages", "s": between, "CPU-s": None},
        {"what": "quick start: all", "s": wall, "CPU-s": processor},
    ]


def commands(config: str, folder: str, repeat: int) -> list[dict[str, Any]]:
    """A row for each command that answers without workers, and for loading the model from Python."""
    given = [config, "--set", f"workspace={folder}"]
    rows = []
    for program, given_to in (
        (COMMAND, ["--help"]),
        (COMMAND, ["config", "validate", *given]),
        (COMMAND, ["status", *given]),
        (COMMAND, ["verify", *given]),
        (COMMAND, ["recommend", *given, "--history", "Star Wars,Fargo"]),
        (LOAD, [folder]),
    ):
        times = [run([*program, *given_to]) for _ in range(repeat)]
        shown = " ".join(part for part in given_to if part not in (*given, folder))
        name = shown or "alphafuse.load"
        rows.append({"what": name, "s": statistics.median(wall for wall, _ in times)})
        rows[-1]["CPU-s"] = statistics.median(processor for _, processor in times)
    return rows


def _processor_seconds() -> float:
    """Processor time of all ended children of this process, and of theirs that they waited for."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = str(Path(folder) / "run")
        rows = [*quick_start(options.config, workspace), *commands(options.config, workspace, options.repeat)]
    publish("Start-up", {"config": options.config, "repeat": options.repeat}, rows, options.json)


if __name__ == "__main__":
    main()
