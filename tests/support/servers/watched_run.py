"""A run of the quick start on two workers beside a real Prometheus, started like a user starts it; tests share it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.servers.prometheus_server import Prometheus, prometheus

COMMAND = [sys.executable, "-c", "from cluster.cli.main import main; main()"]
CONFIG = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
TEXT = "{movie_title} ({release_year}). {class}"
SETTINGS = {
    "data.catalog.text": ". ".join([TEXT] * 4),  # so that an engine works for several scrapes on a fast machine, too
    "embed.engine": "sentence_transformers",
    "embed.batch_size": 256,
    "train.max_steps": 80,
    "train.log_steps": 2,
    "train.max_grad_norm": 5,
    "ray.num_cpus": 2,
}
TIMEOUT_SECONDS = 580


@dataclass
class WatchedRun:
    """A run of all stages that has ended.

    Attributes:
        workspace: folder of the workspace.
        arguments: configuration and settings, for any command about the run.
        output: standard output of the run.
        server: Prometheus, which goes on after the run.
        started: start of the run, seconds since the epoch.
        seen: addresses that were scraped, by (role, stage, worker).
    """

    workspace: Path
    arguments: list[str]
    output: str
    server: Prometheus
    started: float
    seen: dict[tuple[str, str, str], set[str]]


@contextmanager
def watched_run(folder: Path) -> Iterator[WatchedRun]:
    """Run all stages in a new folder."""
    workspace, targets, started = folder / "quick", folder / "targets", time.time()
    settings = {**SETTINGS, "workspace": workspace, "monitoring.targets": targets}
    arguments = [str(CONFIG), *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]
    with prometheus(folder / "prometheus", targets) as server:
        seen: dict[tuple[str, str, str], set[str]] = {}
        with (folder / "output").open("w") as output, (folder / "errors").open("w") as errors:
            process = subprocess.Popen([*COMMAND, "run", *arguments], stdout=output, stderr=errors)
            try:
                while process.poll() is None:
                    assert time.time() < started + TIMEOUT_SECONDS, (folder / "errors").read_text()
                    for target in server.targets():
                        if target["health"] == "up":
                            labels = target["labels"]
                            key = labels["role"], labels.get("stage", ""), labels.get("worker", "")
                            seen.setdefault(key, set()).add(labels["instance"])
                    time.sleep(0.5)
            finally:
                process.terminate()
                process.wait()
        printed = (folder / "output").read_text()
        assert process.returncode == 0, printed + (folder / "errors").read_text()
        yield WatchedRun(workspace, arguments, printed, server, started, seen)
