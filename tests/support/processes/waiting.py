"""Waiting for what happens in other threads and processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float = 60.0, process: subprocess.Popen[str] | None = None) -> T:
    """Wait until a condition is true; returns its value.

    Args:
        seconds: after which it fails; less than the test's own limit, which would end it without a word.
        process: must not end while it is waited for; what it says is shown where it does.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None, f"it has ended: {process.communicate()}"
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found
