"""The commands that look at configurations and files and run nothing: `init`, `config` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alphafuse.stages import needed_stages
from cluster.cli.arguments import ConfigFile, Overrides, reported, settings
from monitoring.terminal.safe_text import echo, printable

config_app = typer.Typer(no_args_is_help=True, help="Look at a configuration without running it.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (init, verify):
        app.command()(command)
    app.add_typer(config_app, name="config")


def init(
    items: Annotated[str, typer.Argument(metavar="ITEMS", help="File, folder, glob or URI of the catalog.")],
    log: Annotated[str, typer.Argument(metavar="LOG", help="File, folder, glob or URI of the interactions.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Configuration to write.")] = Path(
        "config.yaml"
    ),
    item_id: Annotated[str | None, typer.Option(metavar="COLUMN", help="Item id in ITEMS.")] = None,
    text: Annotated[str | None, typer.Option(metavar="TEMPLATE", help='"{title}. {brand}", over columns.')] = None,
    title: Annotated[str | None, typer.Option(metavar="COLUMN", help="Title in ITEMS.")] = None,
    user_id: Annotated[str | None, typer.Option(metavar="COLUMN", help="User id in LOG.")] = None,
    log_item_id: Annotated[str | None, typer.Option(metavar="COLUMN", help="Item id in LOG.")] = None,
    timestamp: Annotated[str | None, typer.Option(metavar="COLUMN", help="Time in LOG.")] = None,
    item_columns: Annotated[str | None, typer.Option(metavar="NAMES", help="Columns of ITEMS without header.")] = None,
    log_columns: Annotated[str | None, typer.Option(metavar="NAMES", help="Columns of LOG without header.")] = None,
) -> None:
    """Look at a catalog and a log, guess what their columns are, and write a configuration to begin with."""
    with reported():
        from alphafuse.data.drafting.draft import Choices, draft_configuration
        from cluster.cli.drafting import write_draft

        columns = [None if names is None else names.split(",") for names in (item_columns, log_columns)]
        choices = Choices(item_id, title, text, user_id, log_item_id, timestamp, *columns)
        write_draft(lambda: draft_configuration(items, log, f"runs/{output.stem}", choices), output)


@config_app.command("show")
def config_show(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print the whole configuration, defaults included."""
    import yaml

    with settings(config, overrides) as (configuration, _):
        tree = configuration.model_dump(mode="json")
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        # YAML has escapes of its own for what no terminal may see, so that the output can still be read back.
        echo(text if printable(text) == text else yaml.safe_dump(tree, sort_keys=False), nl=False)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of configurations, with which editors complete and check them."""
    import json

    from alphafuse.config import Config

    echo(json.dumps(Config.model_json_schema(), indent=2))


@config_app.command("validate")
def config_validate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Check a configuration, and by their first rows the files that it names; starts nothing."""
    with settings(config, overrides) as (configuration, _):
        from alphafuse.inputs import check_inputs
        from monitoring.presentation.formats import number, size

        found = check_inputs(configuration, needed_stages(configuration))
        echo(f"{config} is valid")
        for key, sources in found.items():
            if sources:
                files = "file" if len(sources) == 1 else "files"
                total, formats = sum(source.bytes for source in sources), {source.format for source in sources}
                echo(f"  {key}: {number(len(sources))} {files}, {size(total)}, {', '.join(sorted(formats))}")


def verify(
    config: ConfigFile,
    overrides: Overrides = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Restore damaged files, or delete them: `run` makes them again.")
    ] = False,
) -> None:
    """Compare every file of the workspace with what was committed, for example after a copy."""
    with settings(config, overrides) as (configuration, workspace):
        from cluster.cli.verifying import verify_workspace

        verify_workspace(configuration, workspace, repair)
