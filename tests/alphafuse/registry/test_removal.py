"""Removal of old versions: what is needed stays, and an interrupted removal is continued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from support.faults.killed_writes import Killed, kill_at
from support.workspaces.made_versions import made_workspace

from alphafuse.errors import OwnershipError, WorkspaceError
from alphafuse.registry.removal import remove_versions
from alphafuse.registry.version_registry import Registry
from alphafuse.storage.ownership import beat_of_this_process, write_beat
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.heartbeat import only_owner


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Six versions of `day1` … `day6`, of which v0004 serves, and v0002 has served before."""
    registry = Registry(str(tmp_path / "registry"))
    for day in range(1, 7):
        registry.add(made_workspace(tmp_path / f"day{day}", str(day)))
    registry.promote("v0002", None)
    registry.promote("v0004", "v0002")
    return registry


def _days(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("day*")}


def _fates(registry: Registry, keep: int = 1, dry_run: bool = False) -> dict[str, str]:
    return {each.version.id: each.needed_by for each in remove_versions(registry, keep, dry_run, only_owner)}


def test_aliases_and_the_newest_stay(tmp_path: Path, registry: Registry) -> None:
    everything = sorted(tmp_path.rglob("*"))
    assert _fates(registry, dry_run=True) == {"v0001": "", "v0003": "", "v0005": ""}
    assert sorted(tmp_path.rglob("*")) == everything
    assert _fates(registry, keep=2) == {"v0001": "", "v0003": ""}
    assert _days(tmp_path) == {"day2", "day4", "day5", "day6"}
    assert _fates(registry) == {"v0005": ""}
    assert _fates(registry) == {}
    assert len(registry.versions()) == 6
    with pytest.raises(WorkspaceError, match="v0001 was removed"):
        registry.promote("v0001", "v0004")
    registry.rollback()
    assert registry.alias("production") == "v0002"


def test_what_other_workspaces_need_stays(tmp_path: Path, registry: Registry) -> None:
    registry.add(made_workspace(tmp_path / "grid" / "shared" / "one", "7"))
    registry.add(made_workspace(tmp_path / "day8", "8"))
    Workspace(str(tmp_path / "grid" / "run")).borrow({"catalog": "../shared/one"})
    Workspace(str(tmp_path / "beside")).borrow({"catalog": "../day1"})
    (tmp_path / "tomorrow").mkdir()
    settings = {"update": {"parent": f"file://{tmp_path}/day3"}}
    (tmp_path / "tomorrow" / "config.yaml").write_text(yaml.safe_dump(settings))
    made_workspace(tmp_path / "finished", "f")
    settings["update"]["parent"] = str(tmp_path / "day5")
    (tmp_path / "finished" / "config.yaml").write_text(yaml.safe_dump(settings))
    fates = _fates(registry)
    assert fates["v0001"].endswith("beside borrows from it")
    assert fates["v0003"].endswith("tomorrow has begun to continue its model")
    assert fates["v0007"].endswith("run borrows from it")
    assert fates["v0005"] == fates["v0006"] == ""
    assert _days(tmp_path) == {"day1", "day2", "day3", "day4", "day8"}
    assert registry.aliases().removed == ("v0005", "v0006")


def test_a_workspace_in_use_stays(tmp_path: Path, registry: Registry) -> None:
    write_beat(Workspace(str(tmp_path / "day1")).events, beat_of_this_process("token", "alphafuse recommend"))

    @contextmanager
    def owning(workspace: Workspace) -> Iterator[None]:
        if workspace.name == "day3":
            raise OwnershipError("in use by another machine")
        yield

    fates = {each.version.id: each.needed_by for each in remove_versions(registry, 1, False, owning)}
    assert "in use by process" in fates["v0001"]
    assert fates["v0003"] == "in use by another machine"
    assert _days(tmp_path) == {"day1", "day2", "day3", "day4", "day6"}


def test_a_new_run_in_the_place_of_an_old_version_is_left_alone(tmp_path: Path, registry: Registry) -> None:
    made_workspace(tmp_path / "day1", "made again")
    made_workspace(tmp_path / "day3", "made again")
    assert registry.add(Workspace(str(tmp_path / "day3"))).id == "v0007"
    assert _fates(registry) == {"v0005": "", "v0006": ""}
    assert {"day1", "day3"} <= _days(tmp_path)


def test_a_damaged_list_of_borrowed_artefacts_stops_everything(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "borrowed.json").write_text("{")
    with pytest.raises(WorkspaceError, match=r"borrowed\.json cannot be used"):
        _fates(registry)
    assert len(_days(tmp_path)) == 6


def test_a_kill_at_any_moment_is_continued(tmp_path: Path) -> None:
    for moment in range(200):
        folder = tmp_path / str(moment)
        registry = Registry(str(folder / "registry"))
        for day in (1, 2):
            registry.add(made_workspace(folder / f"day{day}", str(day)))
        registry.promote("v0002", None)
        with pytest.MonkeyPatch.context() as patch:
            calls = kill_at(patch, moment)
            with suppress(Killed):
                _fates(registry)
        registry.version("production").require_whole()
        if len(calls) <= moment:
            break
        # A killed process is dead, and this one is not.
        (folder / "day1" / "events" / "heartbeat.json").unlink(missing_ok=True)
        _fates(registry)
        assert [path for path in (folder / "day1").rglob("*") if path.is_file()] == []
        assert registry.aliases().removed == ("v0001",)
    assert moment > 8
