"""Tokens: the places of the file, making one, and errors if there is none."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.processes.other_user import needs_root

from alphafuse.errors import ClusterError
from jobs.execution.token_file import (
    ensure_token,
    find_token,
    headers,
    require_token,
    show_token_to_clusters,
    token_file,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_order_of_places_is_rays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_token() is None
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("default\n")
    assert find_token() == "default"
    (home / "other").write_text("of the path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "other"))
    assert find_token() == "of the path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the variable")
    assert find_token() == "of the variable"
    assert headers(find_token()) == {"Authorization": "Bearer of the variable"}


def test_no_token_is_an_error_unless_the_cluster_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="there is no token to show to the cluster"):
        require_token()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert require_token() is None
    assert headers(None) == {}


def test_a_named_file_that_is_missing_or_empty_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "token"))
    with pytest.raises(ClusterError, match="does not exist"):
        require_token()
    (home / "token").write_text("\n")
    with pytest.raises(ClusterError, match="is empty"):
        require_token()


@pytest.mark.parametrize("named", [False, True])
def test_a_token_is_made_once_and_for_its_owner_alone(home: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    if named:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "deep" / "token"))
    token = ensure_token()
    assert len(token) == 64
    assert ensure_token() == find_token() == token
    assert stat.S_IMODE(token_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(token_file().parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("folder_mode", [0o755, 0o777])
def test_a_file_that_others_could_read_is_narrowed_and_told(
    home: Path, capsys: pytest.CaptureFixture[str], folder_mode: int
) -> None:
    """As Ray writes it: mode 0644 in a folder of mode 0755."""
    (home / ".ray").mkdir()
    (home / ".ray").chmod(folder_mode)
    (home / ".ray" / "auth_token").write_text("known")
    (home / ".ray" / "auth_token").chmod(0o644)
    assert ensure_token() == find_token() == "known"
    assert stat.S_IMODE(token_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(token_file().parent.stat().st_mode) == 0o700
    said = capsys.readouterr().err
    assert said.count("others could read the token file") == 1
    assert "known" not in said


def test_every_command_narrows_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ensure_token()
    token_file().chmod(0o640)
    show_token_to_clusters()
    assert stat.S_IMODE(token_file().stat().st_mode) == 0o600


@needs_root
def test_a_file_of_another_user_is_refused(home: Path) -> None:
    ensure_token()
    os.chown(token_file(), 65534, 65534)
    with pytest.raises(ClusterError, match="belongs to another user"):
        require_token()


def test_runs_that_start_at_once_read_one_token(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: ensure_token(), range(32)))
    assert len(tokens) == 1
    assert [file.name for file in token_file().parent.iterdir()] == ["auth_token"]


def test_ray_shows_a_token_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # so that it is put back at the end
    del os.environ["RAY_AUTH_MODE"]
    show_token_to_clusters()
    assert "RAY_AUTH_MODE" not in os.environ
    ensure_token()
    show_token_to_clusters()
    assert os.environ["RAY_AUTH_MODE"] == "token"
