"""Making artefacts again: killed at every change of the storage, readers see all old ones or all new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.faults import flaky_storage

from alphafuse.errors import OwnershipError, WorkspaceError
from alphafuse.stages import ARTIFACTS
from alphafuse.storage.filesystem import folder
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.ownership import Guard, beat_of_this_process, write_beat
from alphafuse.storage.workspace import Workspace

NAMES = ("model", "export")


class Killed(BaseException):
    pass


def _owned(uri: str) -> Workspace:
    workspace = Workspace(uri)
    return workspace.guarded(Guard(workspace.events, "token", uri))  # nobody beats


def _make(workspace: Workspace, mark: str) -> None:
    """Make what is missing."""
    for name in NAMES:
        artifact = workspace.artifact(name)
        if artifact.manifest() is None:
            for file in ("one", "two"):
                artifact.write_file(file, mark.encode(), fingerprint({}))
            artifact.commit({})


def _redo(uri: str, begins: bool) -> None:
    """Act as the pipeline does, from the beginning of the redo or from where it was killed."""
    workspace = _owned(uri)
    workspace.redo.finish_taking()
    if begins:
        workspace.redo.begin(NAMES, reusing=())
    _make(workspace, "new")
    workspace.redo.take()


def _marks(workspace: Workspace) -> list[str]:
    """Content of each artefact; every file is compared with its manifest."""
    artifacts = [workspace.artifact(name) for name in NAMES]
    for artifact in artifacts:
        artifact.verify()
    return [artifact.read_file(name).decode() for artifact in artifacts for name in ("one", "two")]


def _kill_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Kill before change number `moment` of the storage, deletions of folders in their middle."""
    changes = []
    for name in ("write_bytes", "delete_files", "delete", "move_to"):
        change = getattr(Folder, name)

        def counted(changed: Folder, *arguments: Any, name: str = name, change: Any = change, **named: Any) -> Any:
            changes.append(name)
            if len(changes) <= moment:
                return change(changed, *arguments, **named)
            if name == "delete":
                changed.delete_files([file for file, size in changed.sizes().items() if size is not None][:1])
            elif name == "move_to" and changed.uri.startswith("flaky"):
                changed._copy_to(arguments[0], named["last"])
            raise Killed

        patch.setattr(Folder, name, counted)


@pytest.mark.parametrize("scheme", ["", "flaky://"], ids=["folders are renamed", "files are copied"])
def test_a_kill_at_any_moment_leaves_everything_old_or_everything_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    flaky_storage.fail_at(set())
    monkeypatch.setattr(folder, "_sync_to_disk", lambda path: None)  # the power stays
    seen: list[str] = []
    while "ended" not in seen:
        uri = f"{scheme}{tmp_path}/{len(seen)}"
        _make(Workspace(uri), "old")
        with monkeypatch.context() as patch:
            _kill_at(patch, len(seen))
            try:
                _redo(uri, begins=True)
                state = "ended"
            except Killed:
                (state,) = set(_marks(Workspace(uri)))
        seen.append(state)
        begun = bool(_owned(uri).redo.pending)
        _redo(uri, begins=False)
        assert set(_marks(Workspace(uri))) == {"old" if state == "old" and not begun else "new"}, seen
        assert not Workspace(uri).redo.folder.exists()
        assert Workspace(uri).folder.names() == sorted(NAMES)
    assert seen == ["old"] * seen.count("old") + ["new"] * seen.count("new") + ["ended"]
    assert min(seen.count("old"), seen.count("new")) > 5


def test_only_the_owner_sees_what_is_made_again(tmp_path: Path) -> None:
    _make(Workspace(str(tmp_path)), "old")
    (tmp_path / "checkpoints").mkdir()
    owner = _owned(str(tmp_path))
    owner.redo.begin(NAMES, reusing=())
    assert [owner.artifact(name).manifest() for name in NAMES] == [None] * 2
    assert owner.checkpoints == owner.redo.folder / "checkpoints"
    assert Workspace(str(tmp_path)).checkpoints == owner.folder / "checkpoints"
    owner.artifact("model").commit({"made": "again"})
    owner.redo.take()
    reader = Workspace(str(tmp_path))
    assert reader.artifact("model").require().inputs == {"made": "again"}
    assert not (tmp_path / "checkpoints").exists()  # they were those of a training that has no successor
    assert reader.redo.pending == ("export",)  # stays in use until it has a successor
    assert reader.artifact("export").read_file("one") == b"old"


def test_a_run_that_was_taken_over_changes_nothing(tmp_path: Path) -> None:
    _make(Workspace(str(tmp_path)), "old")
    owner = _owned(str(tmp_path))
    owner.redo.begin(NAMES, reusing=())
    _make(owner, "new")
    write_beat(owner.events, beat_of_this_process("another", "alphafuse run"))
    for change in (owner.redo.take, lambda: owner.redo.begin(NAMES, reusing=())):
        with pytest.raises(OwnershipError, match="has been taken over"):
            change()
    assert set(_marks(Workspace(str(tmp_path)))) == {"old"}
    assert set(_marks(owner)) == {"new"}


def test_a_damaged_list_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "redo").mkdir()
    for content in ("{", "[]", '{"pending": ["../victim"], "reusing": [], "taking": []}'):
        (tmp_path / "redo" / "redo.json").write_text(content)
        workspace = Workspace(str(tmp_path))
        with pytest.raises(WorkspaceError, match=r"redo\.json cannot be used: .* Move the artefacts that are missing"):
            workspace.artifact(next(iter(ARTIFACTS)))
