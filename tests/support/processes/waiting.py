"""Waiting for what happens in other threads and processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 600.0
"""Only a fault waits so long, on a busy machine too."""


def wait_until(condition: Callable[[], T], process: subprocess.Popen[Any] | None = None) -> T:
    """Wait until a condition is true; returns its value.

    Args:
        process: must not end while it is waited for.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert process is None or process.poll() is None, f"it has ended: {process.communicate()}"
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found
