"""The list of metrics in the documentation, and its list of alerts, are those that there are."""

from __future__ import annotations

import re

import yaml

from monitoring.grafana.all_boards import BOARDS
from monitoring.metrics.metrics_page import PAGE, with_reference


def test_the_documentation_lists_the_metrics() -> None:
    page = PAGE.read_text()
    assert page == with_reference(page), "the metrics have changed: .venv/bin/python -m monitoring.metrics.metrics_page"
    assert "| `alphafuse_train_step_seconds` | histogram |" in page


def test_the_documentation_lists_the_alerts_and_dashboards() -> None:
    page = PAGE.read_text()
    rules = PAGE.parents[1] / "monitoring" / "prometheus" / "rules" / "alerts.yml"
    alerts = {
        rule["alert"]: rule["labels"]["severity"]
        for group in yaml.safe_load(rules.read_text())["groups"]
        for rule in group["rules"]
    }
    listed = re.findall(r"^\| `(\w+)`( \(page\))? \| ", page.split("## Alerts")[1].split("\n## ")[0], re.MULTILINE)
    assert {name: "page" if page else "warning" for name, page in listed} == alerts
    for board in BOARDS:
        assert f"\n| {board.name} |" in page
