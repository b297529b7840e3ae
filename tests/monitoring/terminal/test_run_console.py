"""The output about a run, on a terminal and in a file."""

from __future__ import annotations

import io

from alphafuse.events import (
    EpochMetrics,
    Event,
    Progress,
    StageFailed,
    StageFinished,
    StageSkipped,
    StageStarted,
    StageWarning,
)
from monitoring.terminal.run_console import PLAIN_SECONDS, RunConsole


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STARTED = StageStarted("train", time=100.0)


def _show(stream: io.StringIO, *events: Event, failures: bool = True, quiet: bool = False) -> str:
    with RunConsole(stream, "ndcg@20", failures, quiet) as listen:
        for event in events:
            listen(event)
    return stream.getvalue()


def _steps(done: int, time: float, unit: str = "steps", stage: str = "train") -> Event:
    return Progress(stage, done, 30_000, unit, time=time)


def test_a_file_gets_a_line_now_and_then() -> None:
    progress = [_steps(n, 100 + n * PLAIN_SECONDS / 10) for n in range(1, 26)]
    lines = _show(io.StringIO(), STARTED, *progress).splitlines()
    assert [line.split()[1] for line in lines] == ["10", "20"]
    assert lines[0] == f"  train      10 / 30,000 steps, {PLAIN_SECONDS:.0f} s"


def test_metrics_warnings_and_results() -> None:
    lines = _show(
        io.StringIO(),
        STARTED,
        EpochMetrics("train", epoch=12, loss=4.65432, numbers={"hr@1": 0.5, "ndcg@20": 0.06851}, time=101.0),
        StageWarning("train", "48 rows [without id] left out", time=102.0),
        StageFinished(
            "train", {"steps": 12_345, "best ndcg@20": 0.07, "clamped": 0, "stopped": "patience"}, time=112.5
        ),
        StageStarted("train", time=113.0),
        StageSkipped("train", time=114.0),
    ).splitlines()
    assert lines == [
        "  train      epoch 12  loss 4.654  ndcg@20 0.06851",
        "! train      48 rows [without id] left out",
        "✓ train        12.5 s  steps 12,345 · best ndcg@20 0.07 · stopped patience",
        "✓ train             —  done before",
    ]


def test_a_terminal_shows_count_rate_and_time_left() -> None:
    text = _show(_Terminal(), STARTED, _steps(10, 101.0), _steps(900, 102.0))
    assert "900 / 30,000 steps" in text
    assert "/s" in text


def test_a_stage_may_count_several_things() -> None:
    text = _show(_Terminal(), STARTED, _steps(30_000, 101.0), _steps(5, 102.0, "queries"))
    assert "5 / 30,000 queries" in text


def test_stages_may_run_side_by_side() -> None:
    text = _show(
        io.StringIO(),
        StageStarted("ids-1", time=100.0),
        StageStarted("ids-2", time=110.0),
        _steps(10, 115.0, stage="ids-1"),
        StageFailed("ids-2", "[bad] texts", time=116.0),
        StageFinished("ids-1", {"epochs": 3}, time=120.0),
    )
    assert text.splitlines() == [
        "  ids-1      10 / 30,000 steps, 15 s",
        "✗ ids-2      [bad] texts",
        "✓ ids-1        20.0 s  epochs 3",
    ]


def test_a_failure_is_not_shown_where_the_command_ends_with_it() -> None:
    failed = StageFailed("train", "no memory", time=101.0)
    assert _show(io.StringIO(), STARTED, failed, failures=False) == ""


def test_a_quiet_console_prints_warnings_and_failures() -> None:
    calm = [STARTED, _steps(7, 1000.0), StageFinished("train", {}, time=1001.0), StageSkipped("export", time=1002.0)]
    urgent = [StageWarning("train", "2 texts are empty", time=1003.0), StageFailed("train", "no memory", time=1004.0)]
    lines = _show(io.StringIO(), *calm, *urgent, quiet=True).splitlines()
    assert lines == ["! train      2 texts are empty", "✗ train      no memory"]
    assert _show(_Terminal(), *calm, quiet=True) == ""
