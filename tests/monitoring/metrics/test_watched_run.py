"""A real run on two workers beside a real Prometheus: who is scraped, and whether every panel has data."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.prometheus_server import Prometheus, prometheus

from monitoring.grafana.all_boards import BOARDS
from monitoring.grafana.board_builder import Panel, Query

pytestmark = pytest.mark.engine

CONFIG = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
COMMAND = [sys.executable, "-c", "from cluster.cli.main import main; main()", "run", str(CONFIG), "--until", "evaluate"]
SETTINGS = {
    "embed.engine": "sentence_transformers",
    "embed.batch_size": 256,
    "train.max_steps": 80,
    "train.log_steps": 2,
    "train.max_grad_norm": 5,
    "ray.num_cpus": 2,
}
TIMEOUT_SECONDS = 580
PANELS = [
    pytest.param(panel, query, id=f"{board.name}: {panel.title}: {query.legend}")
    for board in BOARDS
    for panel, query in board.queries()
    if not query.only
]


@dataclass
class Watched:
    """What Prometheus saw of a run that has ended."""

    server: Prometheus
    started: float
    seen: dict[tuple[str, str, str], set[str]]
    """(role, stage, worker) → addresses that were scraped."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("watched")
    targets, started = folder / "targets", time.time()
    settings = {**SETTINGS, "workspace": folder / "quick", "monitoring.targets": targets}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    with prometheus(folder / "prometheus", targets) as server:
        seen: dict[tuple[str, str, str], set[str]] = {}
        with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                while process.poll() is None:
                    assert time.time() < started + TIMEOUT_SECONDS
                    for target in server.targets():
                        if target["health"] == "up":
                            labels = target["labels"]
                            key = labels["role"], labels.get("stage", ""), labels.get("worker", "")
                            seen.setdefault(key, set()).add(labels["instance"])
                    time.sleep(0.5)
            finally:
                process.terminate()
            output = process.stdout.read().decode() if process.stdout else ""
        assert process.returncode == 0, output
        yield Watched(server, started, seen)


def test_every_process_was_found_without_being_named(watched: Watched) -> None:
    workers = {("worker", "embed", "0"), ("worker", "train", "0"), ("worker", "train", "1")}
    assert workers | {("run", "", ""), ("machine", "", "")} <= watched.seen.keys()
    addresses = [address for found in watched.seen.values() for address in found]
    assert len(addresses) == len(set(addresses))  # each process has its own


def test_ours_bind_to_this_machine_alone(watched: Watched) -> None:
    for (role, _, _), addresses in watched.seen.items():
        if role != "machine":
            assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_nothing_is_left_once_the_run_has_ended(watched: Watched) -> None:
    watched.server.wait(lambda: not watched.server.targets())
    # A few scrapes later at most, where Prometheus would go on for five minutes with what it saw last.
    alive = 'alphafuse_stage_running or up{job=~"alphafuse|ray"}'
    watched.server.wait(lambda: not watched.server.get("query", query=alive)["result"])


def test_a_healthy_run_alerts_nobody(watched: Watched) -> None:
    rules = [rule for group in watched.server.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    # How full the disk of this machine is, is not the run's doing.
    fired = watched.server.series('ALERTS{alertstate="firing", alertname!="DiskNearlyFull"}', watched.started)
    assert fired == []


@pytest.mark.parametrize(("panel", "query"), PANELS)
def test_every_panel_has_data(watched: Watched, panel: Panel, query: Query) -> None:
    expression = query.expression.replace("$run", ".*").replace("$__rate_interval", "10s")
    assert "$" not in expression
    series = watched.server.series(expression, watched.started)
    values = [float(value) for one in series for _, value in one["values"]]
    assert any(not math.isnan(value) for value in values), f"{panel.title}: no data for {expression}"
    for label in re.findall(r"{{(\w+)}}", query.legend):
        assert any(one["metric"].get(label) for one in series), f"{label} is no label of {expression}"
