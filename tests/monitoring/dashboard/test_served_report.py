"""The report that the dashboard serves, without a browser: from a workspace in any state, with readable errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.workspaces import made_runs
from werkzeug.test import TestResponse

from alphafuse.storage.workspace import Workspace
from monitoring.dashboard.run_poller import RunPoller
from monitoring.dashboard.server import application

Ask = Callable[[str], TestResponse]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Requests the report of a run by its name, once the dashboard has read all runs."""
    made_runs.finished_run(tmp_path / "finished")
    made_runs.failed_run(tmp_path / "failed")
    (tmp_path / "bare" / "events").mkdir(parents=True)
    poller = RunPoller([str(tmp_path)], seconds=0.02)
    deadline = time.monotonic() + 60
    while len(poller.runs()) < 3 or not all(run.read for run in poller.runs()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    client = application(poller).test_client()
    yield lambda run: client.get("/report", query_string={"run": run})
    poller.close()


def test_it_is_the_report_of_the_run_without_this_machine(ask: Ask) -> None:
    page = ask("finished").text
    for shown in ("15,192", "0.0200", "5 row space, 3 null space", "⚠ log: out of order", "a text", "batch_size: 10"):
        assert shown in page, shown
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2  # reason and title; the user's id is cut
    assert "Environment" not in page


def test_it_is_made_from_the_workspace_as_it_is(ask: Ask, tmp_path: Path) -> None:
    absent = "the stage <code>evaluate</code> has not finished"
    assert absent in ask("failed").text
    assert absent not in ask("finished").text
    Workspace(str(tmp_path / "finished")).artifact("evaluation").uncommit()
    assert absent in ask("finished").text


def test_a_damaged_event_log_hides_no_report(ask: Ask, tmp_path: Path) -> None:
    with (tmp_path / "finished" / "events" / "train.jsonl").open("ab") as log:
        log.write(b'{"stage": "train", "ki')
    assert ask("finished").status_code == 200


def test_artefacts_that_cannot_be_read_are_named(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "finished" / "nullspace" / "nullspace.safetensors").write_bytes(b"cut off")
    answer = ask("finished")
    assert (answer.status_code, answer.mimetype) == (500, "text/plain")
    assert "nullspace" in answer.text


@pytest.mark.parametrize("name", ["nowhere", "bare", made_runs.EVIL])
def test_a_run_that_is_not_there_or_has_no_configuration_has_none(ask: Ask, name: str) -> None:
    answer = ask(name)
    assert (answer.status_code, answer.mimetype) == (404, "text/plain")
    assert answer.text == f"There is no run {name!r} that has a configuration."


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "dash/../../../etc/passwd",
        "dash/..%2f..%2fetc%2fpasswd",
        "dash/dcc/%2e%2e/%2e%2e/x.js",
        "os/x",
        "dash/x.js",
        "dash/%00",
    ],
)
def test_files_that_are_not_served_are_not_there(path: str) -> None:
    poller = RunPoller([])
    answer = application(poller).test_client().get(f"/_dash-component-suites/{path}")
    assert (answer.status_code, answer.text) == (404, "There is no such file.")
    poller.close()
