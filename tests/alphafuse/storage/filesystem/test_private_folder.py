"""Folders of one user: made closed, closed where they were open, refused where they belong to someone else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from support.processes.other_user import as_nobody, needs_root

from alphafuse.errors import ResourceError
from alphafuse.storage.filesystem.private_folder import make_private, state_folder


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_missing_folders_are_made_closed_and_open_ones_are_closed(tmp_path: Path) -> None:
    make_private(tmp_path / "a" / "b")
    assert [_mode(tmp_path / name) for name in ("a", "a/b")] == [0o700, 0o700]
    (tmp_path / "a" / "b").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")  # the user's own
    make_private(tmp_path / "link")
    assert _mode(tmp_path / "a" / "b") == 0o700


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        make_private(tmp_path / "file")


@needs_root
def test_what_another_user_has_put_there_is_refused(tmp_path: Path) -> None:
    for above in (tmp_path, *tmp_path.parents[:-2]):
        above.chmod(above.stat().st_mode | 0o755)
    shared, mine = tmp_path / "shared", tmp_path / "mine"
    shared.mkdir()
    shared.chmod(0o1777)
    mine.mkdir()
    mine.chmod(0o755)
    code = "import os, sys; os.chdir(sys.argv[1]); os.mkdir('folder', 0o777); os.symlink(sys.argv[2], 'link')"
    assert as_nobody(code, shared, mine).returncode == 0
    for name in ("folder", "link"):
        with pytest.raises(PermissionError, match="belongs to another user"):
            make_private(shared / name)
    assert _mode(mine) == 0o755


def test_a_user_without_a_home_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with pytest.raises(ResourceError, match="set HOME"):
        state_folder("targets")
    monkeypatch.setenv("XDG_STATE_HOME", os.sep)
    assert state_folder("targets") == Path("/alphafuse/targets")
