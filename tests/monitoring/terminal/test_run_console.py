"""What a person sees of a run, on a terminal and in a file."""

from __future__ import annotations

import io
from typing import Any

from alphafuse.events import Event
from monitoring.terminal.run_console import PLAIN_SECONDS, RunConsole


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _show(stream: io.StringIO, *events: tuple[str, dict[str, Any], float]) -> str:
    with RunConsole(stream, "ndcg@20") as listen:
        for kind, values, time in events:
            listen(Event("train", kind, values, time))
    return stream.getvalue()


def _steps(done: int, unit: str = "steps") -> dict[str, Any]:
    return {"done": done, "total": 30_000, "unit": unit}


def test_a_file_gets_a_line_now_and_then() -> None:
    progress = [("progress", _steps(n), 100 + n * PLAIN_SECONDS / 10) for n in range(1, 26)]
    lines = _show(io.StringIO(), ("started", {}, 100.0), *progress).splitlines()
    assert [line.split()[1] for line in lines] == ["10", "20"]
    assert lines[0] == f"  train      10 / 30,000 steps, {PLAIN_SECONDS:.0f} s"


def test_metrics_warnings_and_results() -> None:
    lines = _show(
        io.StringIO(),
        ("started", {}, 100.0),
        ("metrics", {"epoch": 12, "loss": 4.65432, "hr@1": 0.5, "ndcg@20": 0.06851}, 101.0),
        ("warning", {"message": "48 rows [without id] left out"}, 102.0),
        ("finished", {"steps": 12_345, "best ndcg@20": 0.07, "clamped": 0, "stopped": "patience"}, 112.5),
        ("started", {}, 113.0),
        ("skipped", {}, 114.0),
    ).splitlines()
    assert lines == [
        "  train      epoch 12  loss 4.654  ndcg@20 0.06851",
        "! train      48 rows [without id] left out",
        "✓ train        12.5 s  steps 12,345 · best ndcg@20 0.07 · stopped patience",
        "✓ train             —  done before",
    ]


def test_a_terminal_shows_count_rate_and_time_left() -> None:
    text = _show(_Terminal(), ("started", {}, 100.0), ("progress", _steps(10), 101.0), ("progress", _steps(900), 102.0))
    assert "900 / 30,000 steps" in text
    assert "/s" in text


def test_a_stage_may_count_several_things() -> None:
    text = _show(
        _Terminal(),
        ("started", {}, 100.0),
        ("progress", _steps(30_000), 101.0),
        ("progress", _steps(5, "queries"), 102.0),
    )
    assert "5 / 30,000 queries" in text


def test_stages_may_run_side_by_side() -> None:
    stream = io.StringIO()
    with RunConsole(stream) as listen:
        for stage, kind, values, time in (
            ("ids-1", "started", {}, 100.0),
            ("ids-2", "started", {}, 110.0),
            ("ids-1", "progress", _steps(10), 115.0),
            ("ids-2", "failed", {"message": "[bad] texts"}, 116.0),
            ("ids-1", "finished", {"epochs": 3}, 120.0),
        ):
            listen(Event(stage, kind, values, time))
    assert stream.getvalue().splitlines() == [
        "  ids-1      10 / 30,000 steps, 15 s",
        "✗ ids-2      [bad] texts",
        "✓ ids-1        20.0 s  epochs 3",
    ]
