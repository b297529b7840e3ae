"""Tokens: the places of the file, making one, and errors if there is none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from alphafuse.errors import ClusterError
from cluster.token_file import (
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


def test_ray_shows_a_token_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # so that it is put back at the end
    del os.environ["RAY_AUTH_MODE"]
    show_token_to_clusters()
    assert "RAY_AUTH_MODE" not in os.environ
    ensure_token()
    show_token_to_clusters()
    assert os.environ["RAY_AUTH_MODE"] == "token"
