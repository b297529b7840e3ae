"""The lists of processes: files that follow their runs, and the server for them."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import tenacity
from support.processes.other_user import as_nobody, needs_root

from alphafuse.storage.filesystem.retries import attempts
from alphafuse.storage.workspace import Workspace
from monitoring.metrics.exporter import Exporter
from monitoring.metrics.target_server import make_server
from monitoring.metrics.targets import STALE_SECONDS, Target, TargetFile, default_folder, read_targets, run_label

ONE = Target("127.0.0.1:1", {"job": "alphafuse", "run": "a"})
TWO = Target("127.0.0.1:2", {"job": "alphafuse", "run": "b"})
LISTED = [{"targets": [target.address], "labels": target.labels} for target in (ONE, TWO)]


def _age(folder: Path, seconds: float) -> None:
    for path in folder.iterdir():
        then = time.time() - seconds
        os.utime(path, (then, then))


def test_runs_list_their_processes_side_by_side_until_they_end(tmp_path: Path) -> None:
    first, second = TargetFile(tmp_path / "new", "a"), TargetFile(tmp_path / "new", "b")
    first.write([ONE])
    second.write([TWO])
    assert read_targets(tmp_path / "new") == LISTED
    first.write([])
    assert read_targets(tmp_path / "new") == LISTED[1:]
    first.remove()
    second.remove()
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_run_left_is_not_listed_and_goes_with_the_next_run(tmp_path: Path) -> None:
    TargetFile(tmp_path, "killed").write([ONE])
    _age(tmp_path, STALE_SECONDS + 1)
    assert read_targets(tmp_path) == []
    living = TargetFile(tmp_path, "b")
    living.write([TWO])
    assert len(list(tmp_path.iterdir())) == 1
    assert read_targets(tmp_path) == LISTED[1:]


def test_a_living_run_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    living = TargetFile(tmp_path, "b")
    TargetFile(tmp_path, "killed").write([ONE])
    _age(tmp_path, STALE_SECONDS + 1)
    living.write([TWO])
    (left,) = tmp_path.iterdir()
    assert json.loads(left.read_text()) == LISTED[1:]


def test_a_run_that_is_started_again_replaces_what_it_left(tmp_path: Path) -> None:
    """The old list goes at once, so that its processes are not taken for dead ones of the new run."""
    TargetFile(tmp_path, "a [1]").write([ONE])
    TargetFile(tmp_path, "a [1]-again").write([ONE])
    TargetFile(tmp_path, "a [1]").write([TWO])
    listed = read_targets(tmp_path)
    assert len(listed) == 2
    assert all(each in listed for each in LISTED)


@needs_root
def test_nothing_of_another_user_is_served_overwritten_or_deleted(tmp_path: Path) -> None:
    """A folder that everybody can write to, as `/tmp` is; another user has put there what would lead elsewhere, block,
    or be believed."""
    for above in (tmp_path, *tmp_path.parents[:-2]):
        above.chmod(0o755)
    shared, mine = tmp_path / "shared", tmp_path / "mine.json"
    shared.mkdir()
    shared.chmod(0o1777)
    mine.write_text(json.dumps([{"targets": ["secret:1"], "labels": {}}]))
    planted = as_nobody(PLANT, shared, mine)
    assert planted.returncode == 0, planted.stderr
    names = {path.name for path in shared.iterdir()}
    assert len(names) == 7
    for age in (0, STALE_SECONDS + 1):
        for path in shared.iterdir():
            os.utime(path, (time.time() - age,) * 2, follow_symlinks=False)
        file = TargetFile(shared, "a")
        file.write([ONE])
        assert read_targets(shared) == LISTED[:1]
        file.write([ONE, TWO])
        assert len(read_targets(shared)) == 2
        file.remove()
        assert {path.name for path in shared.iterdir()} == names
    assert "secret:1" in mine.read_text()


PLANT = """
import json, os, sys
folder, mine = sys.argv[1:]
os.chdir(folder)
os.symlink(mine, "a.link.json")
os.symlink("/etc/passwd", "b.json")
os.symlink("/dev/zero", "a.zero.json")
os.mkfifo("a.pipe.json")
os.mkdir("a.folder.json")
open("a.believed.json", "w").write(json.dumps([{"targets": ["evil:1"], "labels": {"run": "a"}}]))
os.mkdir("b.new")
"""


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"targets": []}', '[{"targets": 1, "labels": {}}]', "[" * 10**5])
def test_a_broken_list_is_passed_over(tmp_path: Path, content: str) -> None:
    TargetFile(tmp_path, "a").write([ONE])
    (tmp_path / "b.json").write_text(content)
    (tmp_path / "c.json").mkdir()
    (tmp_path / "d.json").symlink_to(tmp_path / "b.json")
    os.mkfifo(tmp_path / "e.json")
    assert read_targets(tmp_path) == LISTED[:1]


def test_a_link_in_place_of_the_list_is_not_written_through(tmp_path: Path) -> None:
    file = TargetFile(tmp_path / "lists", "a")
    file.write([ONE])
    (path,) = (tmp_path / "lists").iterdir()
    for place in (path, path.with_suffix(".new")):
        victim = tmp_path / f"victim{place.suffix}"
        victim.write_text("kept")
        place.unlink(missing_ok=True)
        place.symlink_to(victim)
        before = victim.stat().st_mtime_ns
        with suppress(FileExistsError):  # of which a run warns
            file.write([ONE])
        assert victim.read_text() == "kept"
        assert victim.stat().st_mtime_ns == before


def test_the_default_folder_belongs_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    TargetFile(None, "a").write([ONE])
    assert read_targets(default_folder()) == LISTED[:1]
    assert default_folder().is_relative_to(tmp_path)
    for folder in (default_folder(), default_folder().parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_runs_of_one_name_have_labels_of_their_own_which_last(tmp_path: Path) -> None:
    folders = [f"{tmp_path}/one/IDs-22", f"{tmp_path}/two/IDs-22", f"memory://{tmp_path}/one/IDs-22"]
    labels = [run_label(Workspace(folder)) for folder in folders]
    assert len(set(labels)) == 3
    assert all(re.fullmatch(r"IDs-22-[0-9a-f]{6}", label) for label in labels)
    assert labels == [run_label(Workspace(folder)) for folder in folders]


def test_a_living_run_is_listed_however_long_nothing_changes(tmp_path: Path) -> None:
    file = TargetFile(tmp_path, "a")
    file.write([ONE])
    _age(tmp_path, STALE_SECONDS + 1)
    file.write([ONE])
    assert read_targets(tmp_path) == LISTED[:1]


def test_a_list_that_someone_deleted_comes_back(tmp_path: Path) -> None:
    file = TargetFile(tmp_path, "a")
    file.write([ONE])
    for path in tmp_path.iterdir():
        path.unlink()
    file.write([ONE])
    assert read_targets(tmp_path) == LISTED[:1]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = make_server(tmp_path, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_lists_over_http(tmp_path: Path, address: str) -> None:
    def get() -> object:
        with urllib.request.urlopen(f"{address}/targets") as response:
            assert response.headers["Content-Type"] == "application/json"  # Prometheus takes nothing else
            return json.load(response)

    assert get() == []
    file = TargetFile(tmp_path, "a")
    file.write([ONE])
    assert get() == LISTED[:1]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/metrics")


def test_storage_that_is_asked_again_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenacity.nap.time, "sleep", lambda seconds: None)
    left = [OSError("no answer"), OSError("no answer")]

    def fails_twice() -> str:
        if left:
            raise left.pop()
        return "read"

    def count() -> bytes:
        with urllib.request.urlopen(f"http://{exporter.address}/metrics") as response:
            (line,) = [line for line in response if line.startswith(b"alphafuse_storage_retries_total")]
        return line.split()[1]

    with Exporter("127.0.0.1", None) as exporter:
        assert count() == b"0.0"
        assert attempts()(fails_twice) == "read"
        assert count() == b"2.0"


def test_exporters_take_the_next_free_port() -> None:
    with Exporter("127.0.0.1", None) as any_port:
        port = int(any_port.address.rsplit(":", 1)[1])
        with Exporter("127.0.0.1", port) as after:
            assert port < int(after.address.rsplit(":", 1)[1]) < port + 1000
        with urllib.request.urlopen(f"http://{any_port.address}/metrics") as response:
            assert b"process_resident_memory_bytes" in response.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{any_port.address}/metrics")
