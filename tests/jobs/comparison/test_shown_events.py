"""The order of events that come by different ways."""

from __future__ import annotations

from alphafuse.events import Event, Progress, StageFinished, StageStarted, StageWarning
from jobs.comparison.shown_events import InOrder


def test_no_progress_is_shown_before_the_beginning_and_after_the_end() -> None:
    def progress(done: int) -> Progress:
        return Progress("trial-001", done=done, total=None, unit="steps")

    shown: list[Event] = []
    listen = InOrder(shown.append)
    events = [progress(1), StageWarning("trial-001", "beware"), StageStarted("trial-001"), progress(2)]
    events += [StageFinished("trial-001"), progress(3), StageStarted("trial-001"), progress(4)]
    for event in events:
        listen(event)
    assert shown == [event for event in events if event not in (events[0], events[5])]
