"""The command `serve`: finds the model and the settings, and starts the web service."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from alphafuse.config import Config, parse_config
from alphafuse.config.loading import apply_override
from alphafuse.errors import ConfigError
from cluster.cli.arguments import read_config
from jobs.execution.token_file import SERVICE, token_file
from monitoring.terminal.safe_text import echo

SECTIONS = ("serve", "ray", "monitoring")
"""Sections that may be set where no configuration is given."""
SUFFIXES = (".yaml", ".yml")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve_model(what: str | None, registry: str | None, overrides: Sequence[str]) -> None:
    """Serve a model until Ctrl-C.

    Args:
        what: an export or a workspace; or a configuration, whose registry is served, or else its workspace.
        registry: a registry, in the place of that of the configuration.

    Raises:
        AlphafuseError: the settings are wrong, or there is no model.
    """
    has_file = what is not None and what.endswith(SUFFIXES)
    config = read_config(Path(what or ""), overrides) if has_file else _without_file(overrides)
    if has_file:
        what, registry = config.workspace, registry or config.registry
    from jobs.serving.model_source import find_source
    from jobs.serving.service import run

    settings = config.serve
    if settings.host not in LOOPBACK:
        message = f"! tokens and answers go to and from {settings.host} unencrypted: put a proxy with TLS in front"
        echo(message, "yellow", err=True)
    address = f"http://{settings.host}:{settings.port}"

    def ready() -> None:
        file = token_file(SERVICE)
        echo(f"serving  {address}   (Ctrl-C ends it)\ntoken    {file}")
        # The token is in no argument, which other users of the machine could see.
        header = f"""printf 'header = "Authorization: Bearer %s"' "$(cat {shlex.quote(str(file))})\""""
        body = """-H 'Content-Type: application/json' -d '{"history": ["ITEM"], "k": 5}'"""
        echo(f"try      {header} | curl -K - {body} {address}/recommend")

    with suppress(KeyboardInterrupt):
        run(find_source(what, registry), settings, config.ray, config.monitoring, ready)
    echo("stopped")


def _without_file(overrides: Sequence[str]) -> Config:
    """A configuration of defaults, in which the sections of a service alone may be set."""
    # A configuration names the data of a run, which a service does not read.
    tree = {"workspace": "none", "data": {"catalog": {"path": "none"}, "interactions": {"path": "none"}}}
    for override in overrides:
        if override.partition(".")[0].strip() not in SECTIONS:
            raise ConfigError(f"--set {override!r}: without a configuration, only {', '.join(SECTIONS)} can be set")
        apply_override(tree, override)
    return parse_config(tree)
