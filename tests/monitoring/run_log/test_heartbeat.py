"""The heartbeat: it goes on while the block runs, records the end, and lets one process at a time have a workspace."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.processes.waiting import wait_until

from alphafuse.errors import OwnershipError, ResourceError
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.ownership import HEARTBEAT, Beat, alone, beat_of_this_process, process_start, write_beat
from alphafuse.storage.workspace import Workspace
from monitoring.run_log import heartbeat
from monitoring.run_log.heartbeat import Heartbeat, own, read_heartbeat

ELSEWHERE = Beat(0.0, False, "other", "far", "another boot/1", 7, 8, "alphafuse run c.yaml")
PROGRAM = """
import sys, time
from alphafuse.errors import OwnershipError
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.heartbeat import own
sys.argv = ["alphafuse", "run", "a \\x1b[31m.yaml"]
print("ready", flush=True)
input()
try:
    with own(Workspace(FOLDER)):
        print("owns", flush=True)
        input()
except OwnershipError as error:
    print("refused", error, flush=True)
"""


def _own(workspace: Workspace, seconds: float = 0.01, say: Callable[[str], None] = lambda message: None) -> Heartbeat:
    return Heartbeat(workspace.events, workspace.folder.uri, say, seconds)


@contextmanager
def _process(folder: str) -> Iterator[subprocess.Popen[str]]:
    """A process that takes a workspace when it gets a line, and gives it back at the next one."""
    program = [sys.executable, "-c", PROGRAM.replace("FOLDER", repr(folder))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        program, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert _line(process) == "ready"
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "LOST_SECONDS", 0.3)
    monkeypatch.setattr(heartbeat, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(heartbeat, "SETTLE_SECONDS", 0.2)


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.usefixtures("fast")
def test_beats_until_the_block_ends(tmp_path: Path, scheme: str) -> None:
    workspace = Workspace(f"{scheme}{tmp_path}")
    assert read_heartbeat(workspace) is None
    before = time.time()
    with suppress(KeyboardInterrupt), _own(workspace):
        first = read_heartbeat(workspace)
        assert first is not None
        assert before <= first.time <= time.time()
        wait_until(lambda: (beat := read_heartbeat(workspace)) is not None and beat.time > first.time)
        assert not first.ended
        raise KeyboardInterrupt
    last = read_heartbeat(workspace)
    assert last is not None
    assert last.ended


@pytest.mark.parametrize("failure", [OSError("no answer"), ResourceError("No space left"), RuntimeError("a client's")])
def test_a_storage_that_fails_for_a_moment_ends_no_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    workspace, write, left = Workspace(str(tmp_path / "run")), Folder.write_bytes, [failure, failure]

    def fails_twice(folder: Folder, name: str, content: bytes) -> str:
        if left:
            raise left.pop()
        return write(folder, name, content)

    with _own(workspace):
        first = read_heartbeat(workspace)
        assert first is not None
        monkeypatch.setattr(Folder, "write_bytes", fails_twice)
        wait_until(lambda: not left and (beat := read_heartbeat(workspace)) is not None and beat.time > first.time)
    last = read_heartbeat(workspace)
    assert last is not None
    assert last.ended


@pytest.mark.parametrize("before", [None, '{"time": 5.0, "ended": true}'])
def test_an_owner_that_leaves_no_trace_puts_back_what_was_there(tmp_path: Path, before: str | None) -> None:
    workspace = Workspace(str(tmp_path / "run"))
    if before is not None:
        workspace.events.write_bytes(HEARTBEAT, before.encode())
    with _own(workspace) as owner:
        owner.leaves_trace = False
    if before is None:
        assert not (tmp_path / "run" / "events").exists()
    else:
        assert workspace.events.read_bytes(HEARTBEAT) == before.encode()


@pytest.mark.engine
@pytest.mark.parametrize("scheme", ["", "local://"])  # with and without locks
def test_of_two_processes_that_race_one_has_the_workspace(tmp_path: Path, scheme: str) -> None:
    """The second one is refused while the first one lives, and has the workspace as soon as that one was killed."""
    for number in range(3):
        folder = f"{scheme}{tmp_path}/{number}"
        with _process(folder) as one, _process(folder) as two:
            _go(one)
            _go(two)
            answers = {one: _line(one), two: _line(two)}
            assert sorted(answer.split()[0] for answer in answers.values()) == ["owns", "refused"]
            owner = one if answers[one] == "owns" else two
            (refusal,) = [answer for answer in answers.values() if answer != "owns"]
            assert f"is in use by process {owner.pid} on " in refusal
            assert "`alphafuse run 'a ?[31m.yaml'`. Nothing was changed" in refusal
            owner.send_signal(signal.SIGKILL)  # it stays a zombie until the block ends
            wait_until(lambda owner=owner: process_start(owner.pid) is None)
            with own(Workspace(folder)):
                pass


@pytest.mark.usefixtures("fast")
def test_of_many_threads_that_race_without_locks_one_has_the_workspace(tmp_path: Path) -> None:
    workspace, count = Workspace(f"memory://{tmp_path}"), 8
    together, over = threading.Barrier(count), threading.Event()

    def take(number: int) -> bool:
        together.wait()
        try:
            with _own(workspace, seconds=0.05):
                over.wait(60)
                return True
        except OwnershipError:
            return False

    with ThreadPoolExecutor(count) as pool:
        taken = [pool.submit(take, number) for number in range(count)]
        wait_until(lambda: sum(one.done() for one in taken) == count - 1)
        over.set()
        assert sum(one.result() for one in taken) == 1


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    "left",
    [
        dataclasses.replace(ELSEWHERE, time=time.time() + 1e6),  # a clock that is ahead
        dataclasses.replace(ELSEWHERE, time=0.0),
        dataclasses.replace(beat_of_this_process("mine", ""), time=0.0),  # this process beat long ago
    ],
)
def test_a_beat_that_does_not_change_is_taken_over_whatever_its_clock(tmp_path: Path, left: Beat) -> None:
    workspace, said, begin = Workspace(str(tmp_path)), list[str](), time.monotonic()
    write_beat(workspace.events, left)
    with _own(workspace, say=said.append) as owner:
        assert time.monotonic() - begin >= heartbeat.LOST_SECONDS
        owner.guard.require()
    assert len(said) == 1
    assert "which has not said that it ended" in said[0]


@pytest.mark.usefixtures("fast")
def test_a_beat_that_changes_is_not_taken_over_whatever_its_clock(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    write_beat(workspace.events, ELSEWHERE)
    later = threading.Timer(0.1, write_beat, [workspace.events, dataclasses.replace(ELSEWHERE, time=1.0)])
    later.start()
    with (
        pytest.raises(OwnershipError, match=r"is in use by process 7 on far, `alphafuse run c\.yaml`"),
        _own(workspace),
    ):
        pass
    later.join()
    assert read_heartbeat(workspace) == dataclasses.replace(ELSEWHERE, time=1.0)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"time": "x"}', b'{"time": 1, "ended": false, "pid": "7"}'])
def test_a_damaged_heartbeat_is_taken_over_when_nobody_mends_it(tmp_path: Path, content: bytes) -> None:
    workspace = Workspace(str(tmp_path))
    workspace.events.write_bytes(HEARTBEAT, content)
    with pytest.raises(ValueError, match=r"heartbeat\.json is damaged"):
        read_heartbeat(workspace)
    with _own(workspace):
        beat = read_heartbeat(workspace)
        assert beat is not None
        (tmp_path / "events" / HEARTBEAT).write_bytes(b"!")  # the owner mends it
        wait_until(lambda: (tmp_path / "events" / HEARTBEAT).read_bytes() != b"!")


def test_whoever_was_taken_over_writes_and_commits_nothing_more(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    with _own(workspace) as owner:
        ours = workspace.guarded(owner.guard)
        artifact = ours.artifact("model")
        artifact.write_file("weights", b"ours", "wanted")
        with alone(workspace.events):
            write_beat(workspace.events, ELSEWHERE)
        for write in (
            lambda: artifact.write_file("weights", b"again", "wanted"),
            lambda: artifact.commit({}),
            lambda: artifact.clear(),
        ):
            with pytest.raises(OwnershipError, match="has been taken over by process 7 on far"):
                write()
        time.sleep(0.05)
    assert read_heartbeat(workspace) == ELSEWHERE
    assert (tmp_path / "model" / "weights").read_bytes() == b"ours"
    assert artifact.manifest() is None


def test_the_start_of_a_process_tells_it_from_a_later_one(tmp_path: Path) -> None:
    beat = beat_of_this_process("mine", "")
    assert not beat.is_dead
    assert dataclasses.replace(beat, born=beat.born + 1).is_dead
    assert not dataclasses.replace(beat, space="another boot/1", born=0).is_dead
    assert json.loads(json.dumps(dataclasses.asdict(beat))) == dataclasses.asdict(beat)
