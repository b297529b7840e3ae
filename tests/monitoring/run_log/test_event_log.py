"""The event log: events that are kept, several runs, any storage, files of earlier and later versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from alphafuse.events import (
    ArtifactCommitted,
    BatchEmbedded,
    CheckpointWritten,
    EmbeddingProgress,
    EpochMetrics,
    Event,
    Metrics,
    Progress,
    StageFailed,
    StageFinished,
    StageSkipped,
    StageStarted,
    StageWarning,
    StepMeans,
    StepTaken,
    TrainingProgress,
    ValidationProgress,
    WorkerServing,
    WorkersGone,
    WorkersRestarted,
)
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.event_log import (
    KINDS,
    PROGRESS_SECONDS,
    EventLog,
    drop_damaged_lines,
    from_line,
    from_record,
    read_events,
    scan_events,
    to_line,
    to_record,
)

EARLIER = Path(__file__).parent / "events_of_version_0.jsonl"
"""Hand-made lines of the version before typed events: one of each kind, and of each form of a kind."""
MEANS = StepMeans(
    "train", time=110.0, rank=1, step=40, seconds=0.5, data_seconds=0.01, lookup_seconds=0.02, forward_seconds=0.03,
    backward_seconds=0.04, exchange_seconds=0.05, optimizer_seconds=0.06, rows_requested=100.0, rows_distinct=90.0,
    rows_served=80.0, rows_touched=70.0, bytes_sent=4096.0, world_size=2, steps=20, samples_per_second=128.0,
    memory_bytes=1_000_000, device_memory_bytes=None, host="node-1",
)  # fmt: skip
READ: list[Event] = [
    StageStarted("train", time=100.0),
    StageWarning("train", "the [cluster] is small", time=101.0),
    Progress("prepare", 3, 9, "user shards", time=102.0),
    Progress("recommend", 3, None, "users", time=103.0),
    EmbeddingProgress("embed", 30, 90, "texts", tokens=700, quarantined=1, batch_fill=0.5, engines=2, time=104.0),
    TrainingProgress(
        "train", 40, 400, "steps", epoch=2, loss=4.5, learning_rate=0.001, table_learning_rate=0.01,
        gradient_norm=0.75, table_gradient_norm=0.25, samples_per_second=256.0, time=105.0,
    ),
    ValidationProgress("train", 21, 24, "users", time=106.0),
    EpochMetrics("train", split="validation", epoch=2, loss=4.25, numbers={"ndcg@20": 0.125, "hr@5": 0.5}, time=107.0),
    Metrics("evaluate", split="test", numbers={"ndcg@20": 0.25}, time=108.0),
    Metrics("decompose", numbers={"num_rows": 90, "retained_energy": 0.8}, time=109.0),
    MEANS,
    WorkersRestarted("train", "a worker died", 1, time=111.0),
    WorkersRestarted("embed", "an engine died", 2, worker="0", time=112.0),
    CheckpointWritten("train", 40, 0.5, 1000, time=113.0),
    ArtifactCommitted("train", "model", 30, 5000, 2, time=114.0),
    StageFinished("train", {"epochs": 6, "stopped": "patience", "best ndcg@20": 0.125}, time=115.0),
    StageSkipped("train", time=116.0),
    StageFailed("train", "interrupted", time=117.0),
]  # fmt: skip


def _progress(done: int, time: float) -> Event:
    return Progress("embed", done, 9, "texts", time=time)


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_events_of_all_runs_come_back_in_order(tmp_path: Path, scheme: str) -> None:
    workspace = Workspace(f"{scheme}{tmp_path}")
    first = [StageStarted("embed", time=1.0), StageWarning("embed", "«odd»\nline", time=2.0)]
    other = EpochMetrics("train", epoch=1, loss=0.5, time=3.0)
    log = EventLog(workspace)
    for event in (*first, other):
        log(event)
    again = StageStarted("embed", time=4.0)
    EventLog(workspace)(again)
    assert read_events(workspace, "embed") == [*first, again]
    assert read_events(workspace, "train") == [other]
    assert read_events(workspace, "report") == []


def test_progress_is_thinned_but_its_end_is_kept(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    log = EventLog(workspace)
    events = [_progress(done, 100 + done * PROGRESS_SECONDS / 4) for done in range(1, 10)]
    for event in events:
        log(event)
    assert read_events(workspace, "embed") == [events[0], events[4], events[8]]
    log(_progress(8, events[-1].time + 0.1))
    last = _progress(9, events[-1].time + 0.2)
    log(last)
    assert read_events(workspace, "embed") == [events[0], events[4], events[8], last]


def _means(rank: int, step: int) -> StepMeans:
    return StepMeans(
        "train", time=100 + step * PROGRESS_SECONDS / 2, rank=rank, step=step, seconds=0.1, world_size=2, steps=1,
        samples_per_second=1.0, memory_bytes=1, device_memory_bytes=None, host="a",
    )  # fmt: skip


def test_every_worker_is_kept_now_and_then(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    log = EventLog(workspace)
    for step in range(1, 5):
        for rank in (0, 1):
            log(_means(rank, step))
    assert read_events(workspace, "train") == []  # until something else is worth writing the file
    end = EpochMetrics("train", epoch=1, loss=4.0, time=200.0)
    log(end)
    assert read_events(workspace, "train") == [_means(0, 1), _means(1, 1), _means(0, 3), _means(1, 3), end]


@pytest.mark.parametrize(
    "event",
    [
        StepTaken("train", rank=0, step=1, seconds=0.1, samples=8),
        BatchEmbedded("train", texts=1, tokens=1, seconds=0.1, fill=1.0, retries=0, failed={}),
        WorkerServing("train", "0", "127.0.0.1:1"),
        WorkersGone("train"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_single_steps_and_addresses_are_not_kept(tmp_path: Path, event: Event) -> None:
    EventLog(Workspace(str(tmp_path)))(event)
    assert not (tmp_path / "events").exists()


def test_lines_of_the_version_before_are_read_and_written_alike() -> None:
    lines = [json.loads(line) for line in EARLIER.read_text().splitlines()]
    assert [from_record(line) for line in lines] == READ
    later = {"checkpoint": {"waited": 0.0}}  # values that came since, by kind
    now = [{**line, "values": {**line["values"], **later.get(line["kind"], {})}} for line in lines]
    assert [to_record(event) for event in READ] == now
    assert {line["kind"] for line in lines} == set(KINDS)
    assert {type(event) for event in READ} == {cls for classes in KINDS.values() for cls in classes}


def test_what_a_newer_version_adds_is_left_out_and_kept_in_the_file(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    newer = [
        {"stage": "train", "kind": "dream", "values": {"depth": 3}, "time": 1.0},
        {"stage": "train", "kind": "checkpoint", "values": {"step": 4, "seconds": 0.5, "bytes": 9, "tier": "s3"},
         "time": 2.0},
    ]  # fmt: skip
    (tmp_path / "events").mkdir()
    path = tmp_path / "events" / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in newer))
    assert read_events(workspace, "train") == [CheckpointWritten("train", 4, 0.5, 9, time=2.0)]
    EventLog(workspace)(StageStarted("train", time=3.0))
    assert [json.loads(line) for line in path.read_text().splitlines()][:2] == newer


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"stage": "train", "ki', "Unterminated string"),
        (b"[1, 2]", "no JSON object"),
        (b'{"stage": "train", "kind": "started", "time": 1.0}', "not an event"),
        (b'{"stage": "train", "kind": "started", "values": {}}', "not an event"),
        (b'{"stage": "train", "kind": "progress", "values": {"done": 1}, "time": 1.0}', "'progress' lacks values"),
        (b'{"stage": "\xff', "can't decode"),
        (
            b'{"stage": "train", "kind": "progress", "values": {"done": "x", "total": 9, "unit": "a"}, "time": 1.0}',
            "done",
        ),
        (b'{"stage": "train", "kind": "started", "values": {}, "time": NaN}', "not an event"),
        (b'{"crc": "00000000", "stage": "train", "kind": "started", "values": {}, "time": 1.0}', "its checksum"),
    ],
)
def test_a_damaged_line_is_left_out_and_named_and_the_log_goes_on(tmp_path: Path, line: bytes, problem: str) -> None:
    workspace = Workspace(str(tmp_path))
    first, second = StageStarted("train", time=1.0), StageSkipped("train", time=2.0)
    path = tmp_path / "events" / "train.jsonl"
    EventLog(workspace)(first)
    path.write_bytes(path.read_bytes() + line)
    EventLog(workspace)(second)
    events, faults = scan_events(workspace, "train")
    assert events == read_events(workspace, "train") == [first, second]
    assert list(faults) == [2]
    assert re.search(problem, faults[2])
    assert path.read_bytes().splitlines()[1] == line  # nobody loses it before the log is repaired
    drop_damaged_lines(workspace, "train", faults)
    assert scan_events(workspace, "train") == ([first, second], {})


def test_a_line_tells_when_any_of_its_bits_has_flipped() -> None:
    """Except where the line means the same, such as an upper case letter in a number or an escape."""
    line = to_line(MEANS)
    for bit in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert from_line(bytes(flipped)) == MEANS
        except ValueError:
            continue
