"""Versions and aliases: what is added, who serves, and that every kill and every race leaves valid aliases."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.servers.object_store import ObjectStore
from support.workspaces.made_versions import made_workspace

from alphafuse.errors import StaleError, UnfinishedError, WorkspaceError
from alphafuse.registry.version_registry import Registry
from alphafuse.storage.workspace import Workspace


def _aliases(registry: Registry) -> tuple[str | None, ...]:
    return tuple(registry.alias(name) for name in ("production", "candidate", "previous"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


@pytest.mark.parametrize("place", ["disk", "memory://registries/days", "s3://bucket/registry"])
def test_two_days(tmp_path: Path, bucket: ObjectStore, place: str) -> None:
    registry = Registry(str(tmp_path / "registry") if place == "disk" else place)
    assert _aliases(registry) == (None, None, None)
    assert registry.versions() == []
    with pytest.raises(WorkspaceError, match="is the production"):
        registry.version("production")
    first = registry.add(made_workspace(tmp_path / "day1", "a"))
    assert (first.id, first.metrics, first.train_seconds) == ("v0001", {"ndcg@10": 0.1}, 5.0)
    assert registry.version("candidate") == registry.version("v0001") == first
    registry.promote("v0001", None)
    model = Workspace(str(tmp_path / "day1")).artifact("model").require().fingerprint
    second = registry.add(made_workspace(tmp_path / "day2", "b", parent=model))
    assert second.parent == first.artifacts["model"]
    assert _aliases(registry) == ("v0001", "v0002", None)
    registry.promote("v0002", "v0001")
    assert _aliases(registry) == ("v0002", None, "v0001")
    registry.rollback()
    assert _aliases(registry) == ("v0001", None, None)
    with pytest.raises(WorkspaceError, match=r"no previous version.*models promote"):
        registry.rollback()


def test_a_workspace_is_a_version_once(tmp_path: Path, registry: Registry) -> None:
    workspace = made_workspace(tmp_path / "run", "a")
    assert registry.add(workspace) == registry.add(workspace)
    assert registry.add(made_workspace(tmp_path / "run", "b")).id == "v0002"
    with pytest.raises(WorkspaceError, match=r"not that of version v0001.*models add"):
        registry.promote("v0001", None)
    assert _aliases(registry) == (None, "v0002", None)


def test_unfinished_workspaces_and_parts_of_two_models_are_refused(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(UnfinishedError, match="export"):
        registry.add(Workspace(str(tmp_path / "nothing")))
    other = made_workspace(tmp_path / "other", "b")
    for name in ("evaluation", "export"):
        mixed = made_workspace(tmp_path / f"mixed {name}", "a")
        shutil.rmtree(mixed.artifact(name).folder.uri)
        shutil.copytree(other.artifact(name).folder.uri, mixed.artifact(name).folder.uri)
        with pytest.raises(StaleError, match="another model"):
            registry.add(mixed)
    assert registry.ids() == []


def test_registry_and_workspaces_move_together(tmp_path: Path) -> None:
    place = tmp_path / "here"
    Registry(str(place / "registry")).add(made_workspace(place / "day 1", "a"))
    place.rename(tmp_path / "there")
    version = Registry(str(tmp_path / "there" / "registry")).version("v0001")
    assert version.export == str(tmp_path / "there" / "day 1" / "export")
    version.require_whole()


def test_a_comparison_with_another_production_does_not_count(tmp_path: Path, registry: Registry) -> None:
    for day in ("day1", "day2", "day3"):
        registry.add(made_workspace(tmp_path / day, day))
    registry.promote("v0001", None)
    registry.promote("v0002", "v0001")
    with pytest.raises(WorkspaceError, match="v0002 serves by now, and not v0001"):
        registry.promote("v0003", "v0001")
    assert _aliases(registry) == ("v0002", "v0003", "v0001")


@pytest.mark.parametrize("name", ["v9999", "../v0001", "v1", "latest", "v0001\x1b[31m"])
def test_unknown_versions_are_named(tmp_path: Path, registry: Registry, name: str) -> None:
    registry.add(made_workspace(tmp_path / "run", "a"))
    with pytest.raises(WorkspaceError, match=r"has no version '.*the latest: v0001.*models list"):
        registry.version(name)


def test_damaged_files_are_named(tmp_path: Path, registry: Registry) -> None:
    registry.add(made_workspace(tmp_path / "run", "a"))
    registry.promote("v0001", None)
    version, aliases = (tmp_path / "registry" / name for name in ("versions/v0001.json", "aliases/000000002.json"))
    version.write_bytes(version.read_bytes().replace(b"0.1", b"0.9"))
    with pytest.raises(WorkspaceError, match=r"v0001\.json cannot be used: its content differs from its seal"):
        registry.version("production")
    aliases.write_bytes(aliases.read_bytes()[:40])
    with pytest.raises(WorkspaceError, match=r"000000002\.json cannot be used.*delete the damaged one"):
        registry.aliases()
    aliases.unlink()
    assert _aliases(registry) == (None, "v0001", None)


class Killed(BaseException):
    pass


def _kill_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Kill before system call number `moment` among those that change the disk."""
    calls = []
    for name in ("makedirs", "fsync", "link", "unlink"):
        call: Callable[..., Any] = getattr(os, name)

        def counted(*arguments: Any, call: Callable[..., Any] = call, **named: Any) -> Any:
            calls.append(call)
            if len(calls) > moment:
                raise Killed
            return call(*arguments, **named)

        patch.setattr(os, name, counted)


def test_a_kill_at_any_moment_leaves_the_old_aliases_or_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day1, day2 = made_workspace(tmp_path / "day1", "a"), made_workspace(tmp_path / "day2", "b")
    steps: list[tuple[Callable[[Registry], object], tuple[str | None, ...]]] = [
        (lambda registry: registry.add(day1), (None, "v0001", None)),
        (lambda registry: registry.promote("v0001", None), ("v0001", None, None)),
        (lambda registry: registry.add(day2), ("v0001", "v0002", None)),
        (lambda registry: registry.promote("v0002", "v0001"), ("v0002", None, "v0001")),
        (lambda registry: registry.rollback(), ("v0001", None, None)),
    ]
    kills = 0
    for number, (step, after) in enumerate(steps):
        for moment in range(100):
            registry = Registry(str(tmp_path / f"{number} {moment}"))
            for earlier, _ in steps[:number]:
                earlier(registry)
            before = _aliases(registry)
            with monkeypatch.context() as patch:
                _kill_at(patch, moment)
                try:
                    step(registry)
                except Killed:
                    kills += 1
                else:
                    break
            assert _aliases(registry) in (before, after)
            for version in registry.versions():
                version.require_whole()
            if _aliases(registry) == before:  # as the same command does
                step(registry)
            assert _aliases(registry) == after
        else:
            pytest.fail("the step never came to its end")
    assert kills >= 4 * len(steps)


def test_of_many_promotions_at_once_each_leaves_whole_aliases(tmp_path: Path, registry: Registry) -> None:
    for number in range(8):
        registry.add(made_workspace(tmp_path / f"day{number}", str(number)))

    def promote(version: str) -> bool:
        try:
            Registry(registry.folder.uri).promote(version, None)
        except WorkspaceError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(promote, registry.ids()))
    assert sum(won) == 1
    assert registry.alias("production") == registry.ids()[won.index(True)]


def test_many_workspaces_added_at_once_get_versions_of_their_own(tmp_path: Path, registry: Registry) -> None:
    workspaces = [made_workspace(tmp_path / f"day{number}", str(number)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda workspace: Registry(registry.folder.uri).add(workspace), workspaces))
    assert sorted(version.id for version in added) == registry.ids() == [f"v{number:04d}" for number in range(1, 9)]


def test_a_rollback_takes_less_than_a_second(tmp_path: Path, registry: Registry) -> None:
    for number in range(12):
        registry.add(made_workspace(tmp_path / f"day{number}", str(number)))
        registry.promote(registry.ids()[-1], registry.alias("production"))
    start = time.perf_counter()
    registry.rollback()
    assert time.perf_counter() - start < 1
    assert registry.alias("production") == "v0011"
