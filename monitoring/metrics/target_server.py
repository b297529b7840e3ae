"""Serves the list of a machine's run processes over HTTP (Prometheus: `http_sd_configs`), for a Prometheus that cannot
read the folder of lists because it runs on another machine or in another container.
"""

from __future__ import annotations

import json
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from alphafuse.errors import ResourceError
from monitoring.metrics.targets import read_targets

PATH = "/targets"


def make_server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Make a server, not yet serving, that answers `GET /targets` with the processes of all living runs.

    Args:
        folder: folder of the lists.
        port: port to listen on; 0 takes a free one.

    Raises:
        ResourceError: the address does not exist, or the port is taken.
    """
    try:
        return ThreadingHTTPServer((host, port), partial(_Handler, folder))
    except OSError as error:
        raise ResourceError(f"cannot serve on {host}:{port}: {error.strerror}") from error


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, folder: Path, *arguments: object) -> None:
        self._folder = folder
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path != PATH:
            self.send_error(404, f"there is only {PATH}")
            return
        content = json.dumps(read_targets(self._folder)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing."""
