"""Serves dashboards on free ports."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from monitoring.dashboard.run_poller import RunPoller
from monitoring.dashboard.server import free_port, web_server

SLOW = 60_000
"""Milliseconds that a page may take on a busy machine."""


@contextmanager
def serving(*places: str) -> Iterator[str]:
    """Context with a dashboard of these folders; yields its address."""
    poller = RunPoller(places, seconds=0.2)
    with free_port(0) as listening:
        server = web_server(poller, listening)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
            thread.join()
            poller.close()
