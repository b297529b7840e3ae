"""A real run on two workers beside a real Prometheus: every process is scraped, and every panel has data."""

from __future__ import annotations

import math
import re

import pytest
from support.servers.watched_run import WatchedRun

from monitoring.grafana.all_boards import BOARDS
from monitoring.grafana.board_builder import Panel, Query

pytestmark = pytest.mark.engine

PANELS = [
    pytest.param(panel, query, id=f"{board.name}: {panel.title}: {query.legend}")
    for board in BOARDS
    for panel, query in board.queries()
    if not query.only
]


def test_every_process_was_found_without_being_named(watched_run: WatchedRun) -> None:
    workers = {("worker", "embed", "0"), ("worker", "train", "0"), ("worker", "train", "1")}
    assert workers | {("run", "", ""), ("machine", "", "")} <= watched_run.seen.keys()
    addresses = [address for found in watched_run.seen.values() for address in found]
    assert len(addresses) == len(set(addresses))  # each process has its own


def test_ours_bind_to_this_machine_alone(watched_run: WatchedRun) -> None:
    for (role, _, _), addresses in watched_run.seen.items():
        if role != "machine":
            assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_nothing_is_left_once_the_run_has_ended(watched_run: WatchedRun) -> None:
    def listed() -> list[str]:
        """Addresses that runs have listed; that of a registry's metrics stands in the configuration."""
        found = watched_run.server.targets()
        return [each["scrapeUrl"] for each in found if each["labels"]["job"] in ("alphafuse", "ray")]

    watched_run.server.wait(lambda: not listed())
    # After a few scrapes at most. Prometheus would repeat the last values of a lost target for five minutes.
    alive = 'alphafuse_stage_running or up{job=~"alphafuse|ray"}'
    watched_run.server.wait(lambda: not watched_run.server.get("query", query=alive)["result"])


def test_a_healthy_run_alerts_nobody(watched_run: WatchedRun) -> None:
    rules = [rule for group in watched_run.server.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    # A full disk of this machine is not caused by the run.
    fired = watched_run.server.series('ALERTS{alertstate="firing", alertname!="DiskNearlyFull"}', watched_run.started)
    assert fired == []


@pytest.mark.parametrize(("panel", "query"), PANELS)
def test_every_panel_has_data(watched_run: WatchedRun, panel: Panel, query: Query) -> None:
    expression = query.expression.replace("$run", ".*").replace("$__rate_interval", "10s")
    assert "$" not in expression
    series = watched_run.server.series(expression, watched_run.started)
    values = [float(value) for one in series for _, value in one["values"]]
    assert any(not math.isnan(value) for value in values), f"{panel.title}: no data for {expression}"
    for label in re.findall(r"{{(\w+)}}", query.legend):
        assert any(one["metric"].get(label) for one in series), f"{label} is no label of {expression}"
