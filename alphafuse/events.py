"""What a running stage reports: plain events handed to a listener.

The library knows nothing of consoles, files or metric systems; `jobs` connects these events to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Value = int | float | str | bool | None
INTERRUPTED = "interrupted"
"""The message of a stage that somebody ended with Ctrl-C, which has not failed."""


@dataclass(frozen=True)
class Event:
    """One thing that happened in a stage.

    Attributes:
        stage: name of the stage ("prepare", "embed", …).
        kind: "started"; "progress", "validating" (between two of "progress"), "metrics" (what was measured), "warning",
            "restart" (of workers), "checkpoint", "artifact" (which the stage has made); at the end "finished",
            "skipped" or "failed". Of the workers: "serving" (where they serve their metrics), "step" and "batch"
            (single ones), "worker" (steps in the mean).
        values: what is reported; for "progress" `done`, `total` (None where unknown) and `unit`.
        time: seconds since the epoch.
    """

    stage: str
    kind: str
    values: Mapping[str, Value]
    time: float = field(default_factory=time.time)


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who want to hear nothing."""
