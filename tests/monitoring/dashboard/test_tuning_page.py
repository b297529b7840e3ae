"""The page of tunings: found in folders, read again, shown in a browser."""

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
from support.workspaces import made_runs

from alphafuse.storage.filesystem.folder import Folder
from alphafuse.tuning.trials import FAILED, FILE, FINISHED, RUNNING, STOPPED, Trial, Tuning
from monitoring.dashboard.pages.tuning import listing
from monitoring.dashboard.run_poller import FoundTuning, RunPoller
from monitoring.run_log.finding import find_workspaces
from monitoring.run_log.heartbeat import Heartbeat

TRIALS = [
    Trial("trial-001", {"train.learning_rate": 0.003}, STOPPED, curve=[(1, 0.1), (2, 0.11)], seconds=4.0),
    Trial("trial-002", {"train.learning_rate": 0.0123}, FINISHED, curve=[(1, 0.1), (2, 0.25), (3, 0.2)], seconds=90.0),
    Trial("trial-003", {"train.learning_rate": 0.5}, FAILED, f"no memory {made_runs.EVIL}"),
    Trial("trial-004", {"train.learning_rate": 0.02}, RUNNING, curve=[(1, 0.15)]),
]


def _tuning(folder: Path) -> Tuning:
    """A tuning with the workspace of one of its trials."""
    tuning = Tuning("ndcg@20", {}, {"trials": 10, "minutes": 30}, 120.0, TRIALS)
    folder.mkdir(parents=True)
    tuning.write(Folder(str(folder)))
    made_runs.finished_run(folder / "trial-002")
    return tuning


def _texts(part: object) -> str:
    return json.dumps(part, cls=PlotlyJSONEncoder)


def test_tunings_are_found_with_their_trials(tmp_path: Path) -> None:
    _tuning(tmp_path / "a" / "run-tuned")
    found = find_workspaces(str(tmp_path))
    assert found.tunings == [str(tmp_path / "a" / "run-tuned")]
    assert found.workspaces == [str(tmp_path / "a" / "run-tuned" / "trial-002")]


def test_they_are_read_again_and_damage_is_named(tmp_path: Path) -> None:
    folder, poller = tmp_path / "run-tuned", None
    tuning = _tuning(folder)
    try:
        with Heartbeat(Folder(str(folder)), "here"):
            poller = RunPoller([str(tmp_path)], seconds=0.02)
            wait_until(lambda: [(each.key, each.lives) for each in poller.tunings()] == [("run-tuned", True)])
        wait_until(lambda: not poller.tunings()[0].lives)
        dataclasses.replace(tuning, seconds=130.0).write(Folder(str(folder)))
        wait_until(lambda: poller.tunings()[0].tuning.seconds == 130.0)
        (folder / FILE).write_text("{")
        wait_until(lambda: "trials.json is damaged" in poller.places[str(tmp_path)].problem)
        assert poller.tunings()[0].tuning.seconds == 130.0
    finally:
        if poller is not None:
            poller.close()


def test_the_best_trial_comes_first_and_none_of_a_dead_tuning_runs() -> None:
    found = FoundTuning("run-tuned", "/x/run-tuned", Tuning("ndcg@20", {}, {"trials": 10}, 120.0, TRIALS), True)
    shown = _texts(listing([found], []))
    places = [shown.index(trial) for trial in ("trial-002", "trial-004", "trial-001", "trial-003")]
    assert places == sorted(places)
    assert "3 of 10 trials have ended, 2 min 00 s." in shown
    assert '"running"' in shown
    dead = _texts(listing([dataclasses.replace(found, lives=False)], []))
    assert '"running"' not in dead
    assert '"interrupted"' in dead
    assert "alphafuse tune CONFIG SPACE" in _texts(listing([], []))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A dashboard with a tuning, served until the page is closed."""
    _tuning(tmp_path / "run-tuned")
    with serving(str(tmp_path)) as served:
        yield served


@pytest.mark.engine
def test_the_page_in_a_browser(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{address}/tuning", 390)
    rows = page.locator("#tuning-listing tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("finished")
    expect(rows.nth(0).locator("b")).to_have_text("0.2500")
    expect(rows.nth(3)).to_contain_text(made_runs.EVIL)
    expect(rows.nth(0).locator("a")).to_have_attribute("href", "/run/run-tuned/trial-002")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert Axe().run(page).response["violations"] == []
    rows.nth(0).locator("a").click()
    expect(page.locator("main h1")).to_contain_text("trial-002")
