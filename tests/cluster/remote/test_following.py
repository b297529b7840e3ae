"""The log of a job is written by others: it reaches the terminal without control characters."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any, cast

from cluster.remote.following import follow
from cluster.remote.jobs_api import Connection


class _Client:
    def get_job_status(self, job: str) -> str:
        return "SUCCEEDED"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for text in ("first\x1b", "]0;owned\x07 line\r\n", "\x9b2Jsecond\u202e\n"):
            yield text


def test_a_log_acts_on_no_terminal() -> None:
    output = io.StringIO()
    follow(Connection("http://127.0.0.1:1", cast(Any, _Client()), None), "job-1", output)
    assert output.getvalue() == "first\\x1b]0;owned\\x07 line\n\\x9b2Jsecond\\u202e\n"
