"""The dashboards: the written files are current, and their queries use existing metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.grafana.all_boards import BOARDS
from monitoring.grafana.board_builder import Board
from monitoring.metrics import definitions as metrics

MONITORING = Path(__file__).parents[3] / "monitoring"


def _panels(board: Board) -> list[Any]:
    return [panel for panel in json.loads(board.to_json())["panels"] if panel["type"] != "row"]


def test_the_command_writes_every_board(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "grafana"
    subprocess.run([sys.executable, "-m", "monitoring.grafana", str(folder)], check=True)
    written = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    assert {name: board["uid"] for name, board in written.items()} == {
        f"{board.name}.json": f"alphafuse-{board.name}" for board in BOARDS
    }


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_panels_are_whole_and_do_not_overlap(board: Board) -> None:
    panels = _panels(board)
    assert len(panels) == sum(len(row.panels) for row in board.rows)
    assert max(Counter(row.title for row in board.rows).values()) == 1
    cells: Counter[tuple[int, int]] = Counter()
    for panel in panels:
        assert panel["description"].endswith((".", "?"))
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
    assert max(cells.values()) == 1


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_queries_ask_for_metrics_that_there_are(board: Board) -> None:
    groups = [
        metrics.RUN_METRICS,
        metrics.PROCESS_METRICS,
        metrics.REGISTRY_METRICS,
        metrics.SERVE_METRICS,
        *metrics.WORKER_METRICS.values(),
    ]
    kinds = {metric.name: metric.kind for group in groups for metric in group}
    for _, query in board.queries():
        for name in re.findall(r"alphafuse_\w+", query.expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in kinds or kinds.get(base) == "histogram", name


def test_every_metric_is_shown_somewhere() -> None:
    shown = " ".join(query.expression for board in BOARDS for _, query in board.queries())
    groups = [
        metrics.RUN_METRICS,
        metrics.PROCESS_METRICS,
        metrics.REGISTRY_METRICS,
        metrics.SERVE_METRICS,
        *metrics.WORKER_METRICS.values(),
    ]
    not_shown = {metric.name for group in groups for metric in group if metric.name not in shown}
    assert not_shown == {metrics.WORKSPACE_SIZE.name}  # for the alert DiskNearlyFull


def test_what_the_containers_are_given_is_there() -> None:
    compose = yaml.safe_load((MONITORING / "compose.yaml").read_text())
    assert compose["services"].keys() == {"prometheus", "alertmanager", "grafana"}
    for service in compose["services"].values():
        assert ":" in service["image"].rsplit("/", 1)[-1]  # a version
        for volume in (volume for volume in service["volumes"] if isinstance(volume, str)):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (MONITORING / source).exists(), source
    provisioning = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "alphafuse.yaml").read_text())["providers"]
    (dashboards,) = (volume for volume in compose["services"]["grafana"]["volumes"] if isinstance(volume, dict))
    makefile = (MONITORING.parent / "Makefile").read_text()
    assert f"python -m monitoring.grafana {dashboards['source'].removeprefix('../')}\n" in makefile
    assert dashboards["target"] == provider["options"]["path"]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in {f"{dashboards['target']}/{board.name}.json" for board in BOARDS}
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
