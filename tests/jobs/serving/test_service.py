"""Messages of a service that does not start."""

from __future__ import annotations

import pytest

from jobs.serving.service import last_line

TRACE = """The deployment failed to start 3 times in a row.
  File "replica.py", line 59, in __init__
alphafuse.errors.WorkspaceError: /runs/mine/export/model.json cannot be used: it is missing.
"""


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (TRACE, "/runs/mine/export/model.json cannot be used: it is missing."),
        ("RuntimeError: no room", "RuntimeError: no room"),
        ("", "Ray Serve does not say why"),
    ],
)
def test_the_cause_is_told_without_the_trace_of_the_replica(message: str, told: str) -> None:
    assert last_line(message) == told
