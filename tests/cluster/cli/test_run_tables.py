"""Printed progress of runs, from made-up events with round times."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from support.workspaces.tiny_workspace import tiny_workspace

from alphafuse.events import EpochMetrics, Event, Progress, StageFailed, StageStarted, StageWarning
from cluster.cli.run_tables import print_run, read_run
from monitoring.run_log.event_log import EventLog
from monitoring.run_log.heartbeat import own


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def _printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_run(read_run(str(folder)))
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def _log(folder: Path, *events: Event) -> None:
    """Log events; their times are in seconds from now."""
    log, now = EventLog(tiny_workspace(folder)), time.time()
    for event in events:
        log(dataclasses.replace(event, time=now + event.time))


def test_a_run_at_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _log(
        tmp_path,
        StageStarted("train", time=-50),
        StageWarning("train", "the [cluster] is small", time=-49),
        Progress("train", 10, 100, "steps", time=-40),
        EpochMetrics("train", split="validation", epoch=1, loss=0.5, numbers={"ndcg@20": 0.125}, time=-30),
        Progress("train", 30, 100, "steps", time=-20),
    )
    with own(tiny_workspace(tmp_path)):
        lines = _printed(tmp_path, capsys)
    assert lines[0].startswith(f"workspace {tmp_path} running, heard from 0:00:2")
    assert lines[1:4] == ["✓ prepare done", "✓ embed done", "✓ decompose done"]
    # 20 steps in 20 seconds, 70 are left
    assert lines[4] == "… train 30 / 100 steps (30%), about 0:01:10 left epoch 1 loss 0.5 ndcg@20 0.125"
    assert lines[5] == "· evaluate not started"
    assert lines[-1] == "! train the [cluster] is small"


@pytest.mark.parametrize(
    ("message", "line", "last"),
    [
        (
            "interrupted",
            "… train 10 / 100 steps (10%), stopped; the next run goes on from here",
            "· report not started",
        ),
        ("no room", "✗ train 10 / 100 steps (10%), failed; the next run goes on from here", "✗ train no room"),
    ],
)
def test_a_run_that_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], message: str, line: str, last: str
) -> None:
    _log(
        tmp_path,
        StageStarted("train", time=-50),
        Progress("train", 10, 100, "steps", time=-40),
        StageFailed("train", message, time=-30),
    )
    lines = _printed(tmp_path, capsys)
    assert lines[4] == line
    assert lines[-1] == last


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _log(tmp_path, StageStarted("train", time=-50))
    log = tmp_path / "events" / "train.jsonl"
    log.write_bytes(log.read_bytes() + b"{")
    (tmp_path / "config.yaml").write_bytes(b"train: [")
    (tmp_path / "borrowed.json").write_bytes(b"{")
    lines = _printed(tmp_path, capsys)
    assert any(line.startswith("… train") for line in lines)
    problem = " ".join(lines)
    assert "events/train.jsonl: 1 damaged lines are left out, the first is line 2" in problem
    assert "config.yaml is not valid YAML" in problem
    assert "borrowed.json cannot be used" in problem
