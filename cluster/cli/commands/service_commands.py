"""The commands that answer requests until Ctrl-C: `dashboard`, `serve` and `targets`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.arguments import Overrides, reported
from monitoring.terminal.safe_text import echo


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (dashboard, serve, targets):
        app.command()(command)


def dashboard(
    places: Annotated[
        list[str] | None, typer.Argument(metavar="[FOLDER]...", help="Workspaces, or folders of them; default: runs.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8050,
) -> None:
    """Show running and finished runs on a local web page; changes nothing in them."""
    with reported():
        from monitoring.dashboard.server import serve

        serve(places or ["runs"], port, lambda address: echo(f"dashboard   {address}   (Ctrl-C ends it)"))


def serve(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="Export or workspace (folder or URI), or the YAML file of a run."),
    ] = None,
    registry: Annotated[
        str | None, typer.Option(metavar="URI", help="Registry whose version in production is served.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Answer requests for recommendations over HTTP, until Ctrl-C."""
    with reported():
        from cluster.cli.serving import serve_model

        serve_model(what, registry, overrides or ())


def targets(
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="As for monitoring.targets.")] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 9480,
) -> None:
    """Serve the addresses of all processes of this machine's runs, for a Prometheus elsewhere (http_sd_configs)."""
    from monitoring.metrics.target_server import PATH, make_server
    from monitoring.metrics.targets import default_folder

    with reported():
        server = make_server(folder or default_folder(), host, port)
        echo(f"http://{host}:{server.server_port}{PATH}")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
