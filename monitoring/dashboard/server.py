"""The web server of the dashboard: its address, its policy, and the report of each run. Serves this machine alone."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence

from dash import Dash, dcc, html
from dash.exceptions import DependencyException
from flask import Flask, Response, request
from werkzeug.serving import BaseWSGIServer, make_server

from alphafuse.errors import AlphafuseError, ResourceError
from alphafuse.storage.workspace import Workspace
from monitoring.dashboard.callbacks import register_callbacks
from monitoring.dashboard.components import COMPARE_PATH, REPORT_PATH, TUNING_PATH, VERSIONS_PATH
from monitoring.dashboard.run_poller import RunPoller
from monitoring.report.report_page import render, style
from monitoring.report.run_facts import gather

HOST = "127.0.0.1"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta name="viewport" content="width=device-width, initial-scale=1">
{%metas%}<title>{%title%}</title>{%favicon%}
<style>STYLE</style>
{%css%}
</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""


def serve(places: Sequence[str], port: int, announce: Callable[[str], None]) -> None:
    """Serve the dashboard until the process is interrupted.

    Args:
        places: folders or URIs that are workspaces, or hold some.
        port: port to listen on; 0 takes a free one.
        announce: function that is called with the address.

    Raises:
        ResourceError: the port is taken.
    """
    with free_port(port) as listening:
        poller = RunPoller(places)
        try:
            server = web_server(poller, listening)
            announce(f"http://{HOST}:{server.port}/")
            server.serve_forever()
        finally:
            poller.close()


def free_port(port: int) -> socket.socket:
    """A listening socket of the loopback address.

    Raises:
        ResourceError: the port is taken.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        advice = "give another one with --port; 0 takes a free one"
        raise ResourceError(f"cannot serve on port {port} ({error.strerror}); {advice}") from error


def web_server(poller: RunPoller, listening: socket.socket) -> BaseWSGIServer:
    """The server, with a thread for each request. Werkzeug's server suits one person at the same machine."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line for each request
    port = listening.getsockname()[1]
    return make_server(HOST, port, application(poller), threaded=True, fd=listening.fileno())


def application(poller: RunPoller) -> Flask:
    """The web application that shows what the poller reads."""
    server = Flask(__name__, static_folder=None)
    _serve_reports(server, poller)
    app = Dash(
        __name__,
        server=server,  # type: ignore[arg-type]  # as documented: a Flask application
        title="alphafuse",
        update_title="",
        index_string=PAGE.replace("STYLE", style()),
        suppress_callback_exceptions=True,
        add_log_handler=False,
        enable_mcp=False,
    )
    pages = {"Runs": "/", "Compare": COMPARE_PATH, "Tuning": TUNING_PATH, "Versions": VERSIONS_PATH}
    links = [dcc.Link(name, href=path) for name, path in pages.items()]
    app.layout = html.Div(
        [
            dcc.Location(id="place"),
            html.Header([dcc.Link("alphafuse", href="/", className="home"), html.Nav(links)]),
            html.Main(id="page"),
        ]
    )
    register_callbacks(app, poller)
    _protect(server, app.csp_hashes())
    return server


def _protect(server: Flask, scripts: Sequence[str]) -> None:
    """Answer only requests to names of this machine, since another site may point its own name here. Let the browser
    run no script but ours and load nothing from elsewhere."""
    server.config["TRUSTED_HOSTS"] = [HOST, "localhost"]
    policy = "; ".join(
        [
            "default-src 'self'",
            f"script-src 'self' {' '.join(scripts)}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "frame-ancestors 'none'",
        ]
    )

    @server.errorhandler(DependencyException)
    def absent(error: DependencyException) -> Response:
        """Dash raises this for a file that none of its packages has; its message lists all that they have."""
        return Response("There is no such file.", 404, mimetype="text/plain")

    @server.after_request
    def guard(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def _serve_reports(server: Flask, poller: RunPoller) -> None:
    """Answer with the report of a run as its workspace is at that moment, whether the run has ended or not."""
    drawing = threading.Lock()  # matplotlib's settings belong to the process

    @server.get(REPORT_PATH)
    def report() -> Response:
        key = request.args.get("run", "")
        run = poller.run(key)
        if run is None or not run.settings:
            return Response(f"There is no run {key!r} that has a configuration.", 404, mimetype="text/plain")
        try:
            content = gather(run.settings, Workspace(run.uri))
        except (AlphafuseError, OSError, ValueError, KeyError, TypeError) as error:
            problem = f"The artefacts of {key} cannot be read: {type(error).__name__}: {error}"
            return Response(problem, 500, mimetype="text/plain")
        with drawing:
            return Response(render(content, environment={}))
