"""The dashboard in a real browser: its pages for runs in every state, and its behaviour."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from support.processes.waiting import wait_until
from support.servers.served_dashboard import serving
from support.workspaces import made_runs

pytestmark = pytest.mark.engine

Open = Callable[..., Page]
NOT_OURS = {"exclude": [[".dash-dropdown-focus-target"]]}
"""A helper element inside of the drop-down list, hidden from screen readers and in the order of the focus."""


@dataclass(frozen=True)
class Shown:
    """A dashboard, the folder that it shows, and when its living run began."""

    address: str
    folder: Path
    since: float


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("runs")
    made_runs.finished_run(folder / "finished")
    made_runs.failed_run(folder / "grid" / "failed")
    made_runs.lost_run(folder / "lost")
    made_runs.half_written_run(folder / "half")
    made_runs.long_run(folder / "long", epochs=5_000)
    since = made_runs.live_run(folder / "live", learning_rate=0.25)
    over = threading.Event()

    def keep_alive() -> None:
        while not over.wait(1.0):
            made_runs.beat(folder / "live")

    thread = threading.Thread(target=keep_alive)
    thread.start()
    with serving(str(folder)) as address:
        yield Shown(address, folder, since)
    over.set()
    thread.join()


def _steps_done(shown: Shown) -> int:
    """Number of steps that the living run has done."""
    with (shown.folder / "live" / "events" / "train.jsonl").open() as lines:
        return max(json.loads(line)["values"].get("done", 0) for line in lines)


def _traces(page: Page, figure: str) -> int:
    return page.evaluate(f"document.querySelector('#{figure} .js-plotly-plot')?.data?.length ?? 0")


def _points(page: Page, figure: str) -> int:
    return page.evaluate(f"document.querySelector('#{figure} .js-plotly-plot')?.data?.[0]?.x?.length ?? 0")


def test_the_list_names_every_state(shown: Shown, open_page: Open) -> None:
    page = open_page(f"{shown.address}/")
    rows = page.locator(".run")
    expect(rows).to_have_count(6)
    expect(page.locator("#overview-summary")).to_have_text("1 running, 2 lost, 1 failed, 2 finished")
    said = {row.locator(".name").inner_text(): row.inner_text() for row in rows.all()}
    assert next(iter(said)) == "live"
    assert re.search(r"train 30 / 400 steps · .* left", said["live"].replace("\n", " "))
    assert "\nin grid\n" in said["failed"]
    assert f"no model {made_runs.EVIL} is here" in said["failed"]
    assert "stopped without notice" in said["lost"]
    assert "0.1250" in said["finished"]
    assert "test NDCG@20\nseen items left out" in said["finished"]
    assert "prepare" in said["half"]


def test_five_answers_about_a_living_run(shown: Shown, open_page: Open) -> None:
    page = open_page(f"{shown.address}/run/live")
    answers = page.locator(".answer")
    expect(answers).to_have_count(5)
    expect(answers.nth(0)).to_contain_text("running")
    expect(answers.nth(1)).to_contain_text("train")
    expect(answers.nth(2)).to_contain_text(re.compile(r"NDCG@20 0\.10"))
    expect(answers.nth(3)).to_contain_text("lookup")
    expect(answers.nth(4)).to_contain_text("1 of 2 sick")
    expect(answers.nth(4)).to_contain_text("rank 1 slow")
    row = page.locator("#run-workers tr.concern")
    expect(row).to_contain_text("rank 1")
    expect(row).to_contain_text(made_runs.EVIL)  # the name of its machine
    expect(page.locator("#run-messages")).to_contain_text("a worker died")


def test_figures_get_new_points_while_a_run_goes_on(shown: Shown, open_page: Open) -> None:
    page = open_page(f"{shown.address}/run/live")
    wait_until(lambda: _points(page, "loss") > 0)
    before = _points(page, "loss")
    made_runs.write_events(shown.folder / "live", made_runs.training(before + 1, before + 5, shown.since, slow=3.0))
    wait_until(lambda: _points(page, "loss") == before + 5)
    expect(page.locator("#loss-said")).to_contain_text(f"over {before + 5} steps")


def test_what_stays_keeps_the_focus_while_the_page_is_told_news(shown: Shown, open_page: Open) -> None:
    page = open_page(f"{shown.address}/")
    link = page.get_by_role("link", name="live")
    expect(link).to_be_visible()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "live":
            break
    assert page.evaluate("document.activeElement.textContent") == "live"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.evaluate("window.focused = document.activeElement")
    row = page.locator(".run").first
    done = _steps_done(shown)
    made_runs.write_events(shown.folder / "live", made_runs.training(done + 1, done + 2, shown.since, slow=3.0))
    expect(row).to_contain_text(f"train {done + 2} / 400 steps")
    assert page.evaluate("document.activeElement === window.focused")
    link_out = shown.folder / "leads-out"
    link_out.symlink_to("/")
    expect(page.get_by_role("alert")).to_contain_text("leads-out")
    assert page.evaluate("document.activeElement === window.focused")
    link_out.unlink()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert page.evaluate("document.activeElement === window.focused")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("live")
    expect(page.locator(".answer").first).to_contain_text("running")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Runs")


def test_the_table_of_the_workers_stays_while_they_tell_news(shown: Shown, open_page: Open) -> None:
    page = open_page(f"{shown.address}/run/live")
    table = page.get_by_role("group", name="Workers")
    done = _steps_done(shown)
    expect(table).to_contain_text(f"{done}")
    table.focus()
    page.evaluate("window.focused = document.activeElement")
    made_runs.write_events(shown.folder / "live", made_runs.training(done + 1, done + 2, shown.since, slow=3.0))
    expect(table).to_contain_text(f"{done + 2}")
    assert page.evaluate("document.activeElement === window.focused")


def test_a_run_that_begins_is_listed_and_takes_no_focus(shown: Shown, open_page: Open) -> None:
    page = open_page(f"{shown.address}/")
    expect(page.locator(".run")).to_have_count(6)
    page.get_by_role("link", name="live").focus()
    page.evaluate("window.focused = document.activeElement")
    began = shown.folder / "began"
    try:
        made_runs.live_run(began)
        expect(page.locator(".run .name").first).to_have_text("began")
        # The list was drawn anew, and the row has moved: its link has the focus again.
        assert page.evaluate("document.activeElement.textContent") == "live"
        assert not page.evaluate("window.focused.isConnected")
        expect(page.locator(".run").first).to_contain_text("train 30 / 400 steps")
        made_runs.beat(began, ended=True)
        expect(page.locator(".run", has=page.get_by_role("link", name="began"))).to_contain_text("was interrupted")
        expect(page.locator(".run .name").first).to_have_text("live")
        assert page.evaluate("document.activeElement.textContent") == "live"
        page.evaluate("document.activeElement.blur()")  # as a click beside it does
    finally:
        shutil.rmtree(began)
    expect(page.locator(".run")).to_have_count(6)
    assert page.evaluate("document.activeElement === document.body")


def test_texts_of_the_data_are_texts(shown: Shown, open_page: Open) -> None:
    """`open_page` checks that no text ran as a script."""
    page = open_page(f"{shown.address}/run/finished")
    page.get_by_role("link", name="Report").click()
    examples = page.locator("section[aria-labelledby=examples]")
    expect(examples).to_contain_text(made_runs.EVIL)
    expect(examples).to_contain_text("a text")
    expect(page.locator("#results ~ .scroll").first).to_contain_text("0.0200")
    expect(page.get_by_role("img", name="Eigenvalues")).to_contain_text("null space, IDs learn here (3)")
    expect(page.get_by_role("group", name="Quarantined items")).to_contain_text(made_runs.EVIL)
    failed = open_page(f"{shown.address}/run/grid/failed")
    expect(failed.locator("#run-messages")).to_contain_text(f"no model {made_runs.EVIL} is here")
    assert page.locator("main img[src=x], main script").count() == 0
    assert failed.locator("main img[src=x], main script").count() == 0


def test_a_run_that_is_lost_or_half_written_says_so(shown: Shown, open_page: Open) -> None:
    lost = open_page(f"{shown.address}/run/lost")
    expect(lost.locator(".answer").first).to_contain_text(re.compile("no sign of life for 2. min"))
    half = open_page(f"{shown.address}/run/half")
    expect(half.locator("#run-messages")).to_contain_text("events/prepare.jsonl: 1 damaged lines are left out")
    gone = open_page(f"{shown.address}/run/nothing")
    expect(gone.locator("#run-glance")).to_contain_text("There is no run of this name")


def test_thousands_of_epochs_are_thinned(shown: Shown, open_page: Open) -> None:
    page = open_page(f"{shown.address}/run/long")
    wait_until(lambda: _points(page, "validation") > 0)
    assert 100 < _points(page, "validation") <= 602
    expect(page.locator("#validation-said")).to_contain_text("Best 0.9998 in epoch 5000")


def test_runs_are_compared(shown: Shown, open_page: Open) -> None:
    page = open_page(f"{shown.address}/compare?run=live")
    wait_until(lambda: _traces(page, "compared") == 4)
    table = page.locator("#comparison-results table")
    expect(table).to_contain_text("finished")
    expect(table.locator("b")).to_have_text("0.1250")  # the only one that was tested
    differences = page.locator("#comparison-settings table")
    assert differences.locator("tbody th").all_inner_texts() == ["monitoring.targets", "train.learning_rate"]
    search = page.locator(".dash-dropdown-search")

    def opened() -> bool:
        """The list of runs is open; on a busy machine the page may take a key before it can use it."""
        if not search.is_visible():
            page.locator("#chosen").focus()
            page.keyboard.press("Enter")
        return search.is_visible() and bool(search.evaluate("element => element === document.activeElement"))

    wait_until(opened)
    page.keyboard.type("lost")
    option = page.locator(".dash-options-list-option-checkbox")
    expect(option).to_have_count(1)
    page.keyboard.press("ArrowDown")
    expect(option).to_be_focused()
    option.press("Space")
    expect(option).not_to_be_checked()
    page.keyboard.press("Escape")
    wait_until(lambda: _traces(page, "compared") == 3)
    page.locator("#metric").click()
    page.locator(".dash-options-list-option", has_text="training loss").click()
    expect(page.locator("#compared-said")).to_have_text("loss of 3 runs")


@pytest.mark.parametrize("path", ["/", "/run/live", "/report?run=finished", "/compare"])
def test_pages_fit_and_follow_the_colour_scheme(shown: Shown, open_page: Open, path: str) -> None:
    """The pages are opened on a phone, and in a window that is then made wide."""
    colors = {}
    for scheme in ("light", "dark"):
        page = open_page(f"{shown.address}{path}", 390, scheme)
        expect(page.locator("main h1")).to_be_visible()
        texts = "svg text" if path.startswith("/report") else ".js-plotly-plot .xtick text"
        page.wait_for_selector("main .badge" if path == "/" else texts)
        colors[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        if path != "/":
            text = page.evaluate(f"getComputedStyle(document.querySelector('{texts}')).fill")
            assert text == colors[scheme][1]
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            violations = Axe().run(page, NOT_OURS).response["violations"]
            assert [(each["id"], [node["html"] for node in each["nodes"][:2]]) for each in violations] == []
    assert colors["light"][0] != colors["dark"][0]


def test_a_folder_without_runs_says_how_to_start_one(tmp_path: Path, open_page: Open) -> None:
    with serving(str(tmp_path / "runs")) as address:
        page = open_page(f"{address}/")
        expect(page.locator("main")).to_contain_text("No runs yet")
        expect(page.locator("main pre")).to_contain_text("alphafuse run")
        made_runs.failed_run(tmp_path / "runs" / "first")
        expect(page.locator(".run .name")).to_have_text("first")


def test_nothing_is_changed_and_other_names_are_refused(shown: Shown, open_page: Open) -> None:
    finished = shown.folder / "finished"
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    page = open_page(f"{shown.address}/report?run=finished")
    expect(page.locator("section[aria-labelledby=examples]")).to_be_visible()
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    address = urlsplit(shown.address)
    for host, status in ((address.netloc, 200), ("evil.example", 400)):
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        connection.request("GET", "/_dash-layout", headers={"Host": host})
        answer = connection.getresponse()
        assert answer.status == status
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
