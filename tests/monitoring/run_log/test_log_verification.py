"""Damage of event logs and heartbeat is named and repaired; readers go on without what is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.workspaces.made_runs import finished_run

from alphafuse.stages import STAGES
from alphafuse.storage.workspace import Workspace
from monitoring.report.run_facts import gather
from monitoring.run_log.log_verification import examine_events, examine_heartbeat
from monitoring.run_log.reader import RunReader


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    finished_run(tmp_path)
    return Workspace(str(tmp_path))


def _named(workspace: Workspace, repair: bool = False) -> dict[str, str]:
    lost = {f"events/{stage.name}.jsonl" for stage in STAGES if stage.name not in ("train", "evaluate")}
    findings = [*examine_heartbeat(workspace), *examine_events(workspace, repair)]
    found = {finding.file: finding.needs for finding in findings}
    return {file: needs for file, needs in found.items() if file not in lost}  # hand-made artefacts have no events


def test_damaged_lines_are_left_out_until_they_are_deleted(workspace: Workspace, tmp_path: Path) -> None:
    assert _named(workspace) == {}
    whole = RunReader("run", str(tmp_path)).read()
    path = tmp_path / "events" / "train.jsonl"
    content = path.read_bytes()
    path.write_bytes(
        content + b'{"stage": "train", "ki\n\xff\n[[\n' + content.splitlines()[0].replace(b"train", b"embed")
    )
    run = RunReader("run", str(tmp_path)).read()
    assert run.events == whole.events
    assert "events/train.jsonl: 4 damaged lines are left out" in run.problem
    assert gather(whole.settings, workspace).timings  # the page of the report is drawn
    assert _named(workspace, repair=True) == {"events/train.jsonl": "repair"}
    assert path.read_bytes() == content
    assert _named(workspace) == {}


def test_lost_files_are_named_and_need_nothing(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "events" / "train.jsonl").write_bytes(b"")
    (tmp_path / "events" / "heartbeat.json").unlink()
    assert _named(workspace) == {"events/train.jsonl": "nothing", "events/heartbeat.json": "nothing"}


@pytest.mark.parametrize(
    "content", [b"", b'{"time": 17', b"\xff", b"[]", b'{"time": "soon", "ended": 1}', b"[" * 100_000]
)
def test_a_damaged_heartbeat_is_as_none(workspace: Workspace, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "events" / "heartbeat.json").write_bytes(content)
    run = RunReader("run", str(tmp_path)).read()
    assert run.beat is None
    assert "heartbeat.json is damaged" in run.problem
    assert run.events["train"]
    assert _named(workspace) == {"events/heartbeat.json": "repair"}


@pytest.mark.parametrize("content", [b"train: [", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_damaged_configuration_is_a_problem_of_the_run(workspace: Workspace, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    run = RunReader("run", str(tmp_path)).read()
    assert "config.yaml is" in run.problem
    assert run.settings == {}
    assert run.events["train"]


def test_a_damaged_list_of_borrowed_artefacts_is_a_problem_of_the_run(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "borrowed.json").write_bytes(b"{")
    run = RunReader("run", str(tmp_path)).read()
    assert "borrowed.json cannot be used" in run.problem
    assert run.events["train"]
