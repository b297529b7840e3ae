"""The alerts and dashboards in the documentation are complete and current."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from monitoring.grafana.all_boards import BOARDS

PAGE = Path(__file__).parents[3] / "docs" / "monitoring.md"


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
