"""The page of versions: registries are found in folders, read again, and shown in a browser."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from plotly.utils import PlotlyJSONEncoder
from support.processes.waiting import wait_until
from support.servers.served_dashboard import serving
from support.workspaces.made_runs import EVIL
from support.workspaces.made_versions import made_workspace

from alphafuse.registry.version_registry import Registry
from monitoring.dashboard.pages.versions import listing
from monitoring.dashboard.run_poller import FoundRegistry, RunPoller
from monitoring.run_log.finding import find_workspaces


def _registry(folder: Path) -> Registry:
    """A registry of two workspaces beside it; the first one serves."""
    registry = Registry(str(folder / "registry"))
    first = registry.add(made_workspace(folder / "monday", "first", 0.1))
    registry.promote(first.id, None)
    registry.add(made_workspace(folder / "tuesday", "second", 0.125, parent=first.artifacts["model"]))
    return registry


def _texts(registry: FoundRegistry) -> str:
    return json.dumps(listing([registry], []), cls=PlotlyJSONEncoder)


def test_registries_are_found_beside_workspaces(tmp_path: Path) -> None:
    _registry(tmp_path / "shop")
    found = find_workspaces(str(tmp_path))
    assert found.registries == [str(tmp_path / "shop" / "registry")]
    assert found.problems == []


def test_they_are_read_again_and_damage_is_named(tmp_path: Path) -> None:
    registry, poller = _registry(tmp_path), RunPoller([str(tmp_path)], seconds=0.02)
    try:
        wait_until(lambda: [len(each.versions) for each in poller.registries()] == [2])
        registry.promote("v0002", "v0001")
        wait_until(lambda: poller.registries()[0].aliases.production == "v0002")
        (tmp_path / "registry" / "versions" / "v0002.json").write_text("{")
        wait_until(lambda: "v0002.json cannot be used" in poller.places[str(tmp_path)].problem)
        assert len(poller.registries()[0].versions) == 2
    finally:
        poller.close()


def test_the_latest_comes_first_and_removed_ones_are_counted(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    aliases, (first, second) = registry.aliases(), registry.versions()
    updated = dataclasses.replace(
        second, drift={"kind": "kept"}, warm_start={"new": 1_234, "removed": 5}, stability={"overlap": 0.6384}
    )
    shown = _texts(FoundRegistry("registry", aliases, [first, updated]))
    places = [shown.index(text) for text in ("v0002", "0.1250", "1,234", '"v0001"', "0.638", "0.1000")]
    assert places == sorted(places)  # v0001 as the parent comes before its own row
    assert shown.count('"candidate"') == shown.count('"production"') == 1
    assert "2 versions, last change: add v0002" in shown
    removed = dataclasses.replace(aliases, candidate=None, removed=("v0002",))
    shown = _texts(FoundRegistry("registry", removed, [first, updated]))
    assert "0.1250" not in shown
    assert "1 versions, 1 removed" in shown


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A dashboard with a registry, served until the page is closed."""
    _registry(tmp_path / f"shop {EVIL.replace('/', '')}")
    with serving(str(tmp_path)) as served:
        yield served


@pytest.mark.engine
def test_the_page_in_a_browser(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{address}/versions", 390)
    rows = page.locator("#versions-listing tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("candidate")
    expect(rows.nth(0)).to_contain_text("0.1250")
    expect(rows.nth(1)).to_contain_text("production")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert Axe().run(page).response["violations"] == []
    page.get_by_role("link", name="Runs").click()
    expect(page.locator("main h1")).to_have_text("Runs")
