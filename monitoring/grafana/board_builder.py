"""The parts of a dashboard (board, row, panel, query) and their translation into Grafana's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendPlacement, StackingMode, TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
)

HEIGHT = 8
WIDTH = 24
DATASOURCE = DataSourceRef("prometheus", "${datasource}")
YES_NO: list[ValueMapping] = [ValueMap({"0": ValueMappingResult("no", "red"), "1": ValueMappingResult("yes", "green")})]

Kind = Literal["lines", "stacked", "numbers", "bars", "yes_no"]
Only = Literal["", "gpu", "fault", "vllm", "models", "serve"]


@dataclass(frozen=True)
class Query:
    """An expression of Prometheus, and the name of each series that it gives.

    Attributes:
        only: the only case in which the query has data: on a GPU, after a fault, with the engine vLLM, where
            `alphafuse models metrics` serves versions, of the web service; empty: always.
    """

    expression: str
    legend: str
    only: Only = ""


@dataclass(frozen=True)
class Panel:
    """A graph or a set of numbers.

    Attributes:
        unit: one of Grafana's units: short, s, bytes, percentunit (0 to 1), percent (0 to 100), …
        help: how to read it.
    """

    title: str
    queries: tuple[Query, ...]
    help: str
    unit: str = "short"
    kind: Kind = "lines"

    def build(self, width: int) -> Any:
        builder: Any = {"lines": timeseries, "stacked": timeseries, "bars": bargauge}.get(self.kind, stat).Panel()
        builder.title(self.title).description(self.help).unit(self.unit).datasource(DATASOURCE)
        builder.height(HEIGHT if self.kind in ("lines", "stacked") else HEIGHT // 2 + 1).span(width)
        for number, query in enumerate(self.queries):
            target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).datasource(DATASOURCE)
            builder.with_target(target.ref_id(chr(ord("A") + number)))
        if self.kind in ("lines", "stacked"):
            builder.legend(common.VizLegendOptions().placement(LegendPlacement.BOTTOM).show_legend(True)).min(0)
        if self.kind == "stacked":
            builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
        if self.kind == "yes_no":
            builder.mappings(YES_NO)
        return builder


@dataclass(frozen=True)
class Row:
    """Panels side by side, in lines of `per_line`."""

    title: str
    panels: tuple[Panel, ...]
    per_line: int = 3


@dataclass(frozen=True)
class Board:
    """A dashboard.

    Attributes:
        name: stem of the JSON file, and part of the dashboard's address.
    """

    name: str
    title: str
    rows: tuple[Row, ...]

    def queries(self) -> Iterator[tuple[Panel, Query]]:
        for row in self.rows:
            for panel in row.panels:
                for query in panel.queries:
                    yield panel, query

    def to_json(self) -> str:
        """The dashboard in Grafana's JSON."""
        builder = (
            dashboard.Dashboard(self.title)
            .uid(f"alphafuse-{self.name}")
            .tags(["alphafuse"])
            .refresh("10s")
            .time("now-1h", "now")
            .timezone(TimeZoneBrowser)
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
            .with_variable(
                dashboard.QueryVariable("run")
                .label("Run")
                .query("label_values(alphafuse_stage_running, run)")
                .datasource(DATASOURCE)
                .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
                .multi(True)
                .include_all(True)
                .all_value(".*")
                .current(VariableOption(selected=True, text="All", value="$__all"))
            )
            .link(
                dashboard.DashboardLink("AlphaFuse")
                .type(DashboardLinkType.DASHBOARDS)
                .tags(["alphafuse"])
                .keep_time(True)
                .include_vars(True)
            )
        )
        for row in self.rows:
            builder.with_row(dashboard.Row(row.title))
            for panel in row.panels:
                builder.with_panel(panel.build(WIDTH // row.per_line))
        return JSONEncoder(sort_keys=True, indent=1).encode(builder.build()) + "\n"
