"""The command `alphafuse`: parses its arguments and calls the packages, nothing more.

Heavy modules are imported inside of the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib.metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from alphafuse.stages import RECOMMEND, STAGES
from cluster.cli.arguments import end_like_ctrl_c
from cluster.cli.commands import (
    cluster_commands,
    config_commands,
    models_commands,
    run_commands,
    service_commands,
    stage_commands,
    tune_command,
)
from jobs.execution.token_file import show_token_to_clusters
from monitoring.terminal.safe_text import echo

ORDER_OF_USE = (
    "init", "run", "status", "dashboard", "recommend", "serve", "compare", "tune", "update", "add-items", "models",
    *(stage.name for stage in STAGES if stage is not RECOMMEND),
    "config", "verify", "submit", "jobs", "logs", "stop", "local", "targets", "synth",
)  # fmt: skip
"""All commands: those of the first day, the stages one by one, care, clusters, and the rest."""


class Commands(TyperGroup):
    """The commands, listed in the order in which people come to them."""

    def list_commands(self, ctx: Any) -> list[str]:  # a context of the click that typer brings
        return sorted(super().list_commands(ctx), key=ORDER_OF_USE.index)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Sequential recommenders whose item embeddings keep what a language model knows.",
)
for _commands in (
    run_commands, stage_commands, config_commands, service_commands, models_commands, tune_command, cluster_commands
):  # fmt: skip
    _commands.register(app)


def main() -> None:
    """Entry point of the console script."""
    end_like_ctrl_c()
    show_token_to_clusters()
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        echo(f"alphafuse {importlib.metadata.version('alphafuse')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
