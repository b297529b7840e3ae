"""Reading workspaces: finding them, reading changes, and that damage or slow storage holds up no other workspace."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import yaml
from support.processes.waiting import wait_until
from support.workspaces import made_runs
from support.workspaces.finished_workspace import finished_workspace
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.events import EpochMetrics, StageStarted
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from monitoring.dashboard import run_poller
from monitoring.dashboard.pages.overview import overview
from monitoring.dashboard.pages.run import LIVE, drawn, epochs
from monitoring.dashboard.run_poller import RunPoller
from monitoring.run_log import finding
from monitoring.run_log.event_log import EventLog
from monitoring.run_log.finding import Found, find_workspaces
from monitoring.run_log.reader import RunReader


@contextmanager
def _polling(*places: str) -> Iterator[RunPoller]:
    poller = RunPoller(places, seconds=0.02)
    yield poller
    poller.close()


def test_workspaces_are_found_in_folders_and_in_comparisons(tmp_path: Path) -> None:
    for name in ("one", "grid/AlphaFuse-22", "grid/shared/embed-1a"):
        (tmp_path / name / "events").mkdir(parents=True)
    (tmp_path / "grid" / "IDs-22").mkdir()
    (tmp_path / "grid" / "IDs-22" / "borrowed.json").write_text("{}")
    (tmp_path / "copied" / "model").mkdir(parents=True)
    (tmp_path / "copied" / "config.yaml").write_text("")
    for name in ("data", ".git/events", "one/events/events", "a/b/c/d/events"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "one")
    (tmp_path / "endless").symlink_to(tmp_path)
    search = find_workspaces(str(tmp_path))
    found = [Path(uri).relative_to(tmp_path).as_posix() for uri in search.workspaces]
    assert found == ["copied", "grid/AlphaFuse-22", "grid/IDs-22", "grid/shared/embed-1a", "one"]
    assert search.problems == []
    assert find_workspaces(str(tmp_path / "one")).workspaces == [str(tmp_path / "one")]
    assert find_workspaces(str(tmp_path / "latest")).workspaces == [str(tmp_path / "latest")]
    assert find_workspaces(str(tmp_path / "nowhere")).workspaces == []


def test_links_out_of_a_place_are_not_followed(tmp_path: Path) -> None:
    made_runs.failed_run(tmp_path / "elsewhere")
    runs = tmp_path / "runs"
    made_runs.failed_run(runs / "good")
    (runs / "linked").symlink_to(tmp_path / "elsewhere")
    search = find_workspaces(str(runs))
    assert search.workspaces == [str(runs / "good")]
    assert search.problems == [f"{runs}/linked is a link to another place, which is not followed: name that place"]
    for name in ("config.yaml", "events/embed.jsonl"):
        (runs / "good" / name).unlink()
        (runs / "good" / name).symlink_to(tmp_path / "elsewhere" / name)
    run = RunReader("good", str(runs / "good")).read()
    assert (run.settings, run.events) == ({}, {})
    assert "embed.jsonl is a link out of the workspace: it is not read" in run.problem
    assert "config.yaml is a link out of the workspace: it is not read" in run.problem


def _bomb(run: Path) -> None:
    lists = [f"a{number + 1}: &a{number + 1} [{', '.join([f'*a{number}'] * 10)}]" for number in range(12)]
    (run / "config.yaml").write_text("\n".join(["a0: &a0 [1]", *lists]))


def _of_other_kinds(run: Path) -> None:
    (run / "config.yaml").write_text("train: 3\nmodel: [x]\nevaluate: null")
    (run / "catalog").mkdir()
    (run / "catalog" / "manifest.json").write_text("7")


def _pipes(run: Path) -> None:
    for name in ("config.yaml", "events/embed.jsonl", "events/heartbeat.json"):
        (run / name).unlink()
    for name in ("config.yaml", "borrowed.json", "events/embed.jsonl", "events/heartbeat.json"):
        os.mkfifo(run / name)


def _unreadable(run: Path) -> None:
    shutil.rmtree(run / "events")
    (run / "events").write_text("a file where the folder should be")


@pytest.mark.parametrize("damage", [_bomb, _of_other_kinds, _pipes, _unreadable])
def test_a_hostile_run_hides_no_other(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    for name in ("bad", "good"):
        made_runs.failed_run(tmp_path / name)
    damage(tmp_path / "bad")
    with _polling(str(tmp_path)) as poller:
        wait_until(lambda: poller.places[str(tmp_path)].read is not None)
        good, bad = poller.run("good"), poller.run("bad")
        assert good is not None
        assert good.state(time.time()).status == "failed"
        assert good.problem == ""
        assert bad is not None
        if damage is not _of_other_kinds:
            assert bad.problem
        shown = overview(poller.runs(), poller.places, time.time())
        assert {"good", "bad"} == shown.news.keys()
        for part in (*LIVE.values(), lambda run, *_: epochs(run), lambda run, *_: drawn(run)):
            part(bad, bad.state(time.time()), time.time())


def test_an_unreadable_folder_hides_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good", "closed/inner"):
        made_runs.failed_run(tmp_path / name)
    entries = finding._entries

    def some(folder: Folder) -> list[pafs.FileInfo]:
        if folder.uri.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder.uri)  # root may read everything
        return entries(folder)

    monkeypatch.setattr(finding, "_entries", some)
    with _polling(str(tmp_path)) as poller:
        wait_until(lambda: poller.run("good") is not None)
        wait_until(lambda: "closed: PermissionError" in poller.places[str(tmp_path)].problem)


def test_a_run_of_a_comparison_that_waits_has_not_started(tmp_path: Path) -> None:
    _, shared = finished_workspace(tmp_path / "shared", "odd")
    waits = Workspace(f"{tmp_path}/AlphaFuse-22")
    waits.borrow(
        dict.fromkeys(("catalog", "sequences", "popularity", "embeddings", "nullspace", "features"), "../shared")
    )
    run = RunReader("AlphaFuse-22", waits.folder.uri).read()
    state = run.state(time.time())
    assert state.status == "empty"
    done = [stage.name for stage in state.stages if stage.status == "finished"]
    assert done == ["prepare", "embed", "decompose"]
    assert RunReader("shared", shared.folder.uri).read().state(time.time()).status == "finished"


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_news_are_read_and_only_then_the_version_grows(tmp_path: Path, scheme: str) -> None:
    workspace = Workspace(f"{scheme}{tmp_path}/run")
    log = EventLog(workspace)
    log(StageStarted("train", time=100.0))
    reader = RunReader("run", workspace.folder.uri)
    first = reader.read()
    assert reader.read().version == first.version == 1
    assert first.settings == {}
    log(EpochMetrics("train", epoch=1, loss=4.0, numbers={"ndcg@20": 0.5}, time=110.0))
    second = reader.read()
    assert second.version == 2
    assert second.training.best("ndcg@20") == (1, 0.5)
    settings = tiny_config(tmp_path).model_dump(mode="json")
    workspace.folder.write_bytes("config.yaml", yaml.safe_dump(settings).encode())
    third = reader.read()
    assert (third.version, third.settings) == (3, settings)


def test_a_damaged_log_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    made_runs.half_written_run(tmp_path / "run")
    reader = RunReader("run", str(tmp_path / "run"))
    run = reader.read()
    assert run.problem.startswith("events/prepare.jsonl: 1 damaged lines are left out, the first is line 2")
    assert [type(event) for event in run.events["prepare"]] == [StageStarted]
    (tmp_path / "run" / "events" / "prepare.jsonl").write_text("")
    assert reader.read().problem == ""


def test_remote_and_local_runs_have_their_names(tmp_path: Path) -> None:
    made_runs.finished_run(tmp_path / "here" / "good")
    EventLog(Workspace(f"memory://{tmp_path}/there/far"))(StageStarted("prepare"))
    with _polling(str(tmp_path / "here"), f"memory://{tmp_path}/there") as poller:
        wait_until(lambda: len(poller.runs()) == 2)
        assert [run.key for run in poller.runs()] == ["here/good", "there/far"]


def test_places_that_are_called_the_same_keep_their_runs_apart(tmp_path: Path) -> None:
    for name in ("home", "copy"):
        (tmp_path / name / "runs" / "mine" / "events").mkdir(parents=True)
    places = [f"{tmp_path}/{name}" for name in ("home/runs", "copy/runs", "home/runs/", "home")]
    with _polling(*places) as poller:
        assert list(poller.places) == [places[0], places[1], places[3]]
        wait_until(lambda: len(poller.runs()) == 3)
        keys = [run.key for run in poller.runs()]
        assert keys == [f"{tmp_path}/home/runs/mine", f"{tmp_path}/copy/runs/mine", "home/runs/mine"]
        for key, owner in zip(keys, ("home", "copy", "home"), strict=True):
            run = poller.run(key)
            assert run is not None
            assert run.uri == f"{tmp_path}/{owner}/runs/mine"


def test_a_storage_that_hangs_or_fails_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_runs.failed_run(tmp_path / "run")
    over, fails = threading.Event(), {"s3://fails/runs": True}

    def find(place: str) -> Found:
        if place == "s3://hangs/runs":
            over.wait()
        if fails.get(place):
            raise OSError("no credentials")
        return find_workspaces(place) if "://" not in place else Found([], [])

    monkeypatch.setattr(run_poller, "find_workspaces", find)
    with _polling("s3://hangs/runs", "s3://fails/runs", str(tmp_path)) as poller:
        wait_until(lambda: bool(poller.runs()) and bool(poller.places["s3://fails/runs"].problem))
        assert poller.places["s3://hangs/runs"].read is None
        assert poller.places["s3://fails/runs"].problem == "OSError: no credentials"
        fails.clear()
        wait_until(lambda: poller.places["s3://fails/runs"].problem == "")
        over.set()
        wait_until(lambda: poller.places["s3://hangs/runs"].read is not None)
