"""The commands that run all stages or several configurations: `run`, `update`, `add-items`, `compare` and `synth`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from alphafuse.stages import REPORT, find_stage, needed_stages
from cluster.cli.arguments import ConfigFile, Overrides, Quiet, reported, settings
from monitoring.terminal.safe_text import echo, printable


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (run, update, compare, synth):
        app.command()(command)
    app.command("add-items")(add_items)


def run(
    config: ConfigFile,
    overrides: Overrides = None,
    redo: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage and all later ones again.")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    quiet: Quiet = False,
) -> None:
    """Run all stages; finished ones are skipped."""
    with settings(config, overrides) as (configuration, workspace):
        from cluster.cli.running import print_next, print_results, run_with_progress

        last, again = find_stage(until or REPORT.name), find_stage(redo) if redo else None
        run_with_progress(configuration, workspace, needed_stages(configuration, last), again, quiet)
        if print_results(workspace, configuration.registry) and not quiet:
            print_next([str(config), *(part for each in overrides or () for part in ("--set", each))], workspace)


def update(
    config: ConfigFile,
    parent: Annotated[
        str,
        typer.Option(
            "--from", metavar="WORKSPACE", help="Workspace of the model to continue, or a version in `registry`."
        ),
    ],
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Continue the model of another workspace with new data, in a workspace of its own; the other one is only read."""
    with settings(config, overrides) as (configuration, workspace):
        from alphafuse.registry.aliases import NAMES
        from alphafuse.registry.version import is_version_id
        from alphafuse.registry.version_registry import Registry
        from alphafuse.storage.filesystem.folder import resolve
        from alphafuse.storage.workspace import CONFIG
        from cluster.cli.running import print_next, print_results, run_with_progress

        if configuration.registry is not None and (parent in NAMES or is_version_id(parent)):
            parent = Registry(configuration.registry).kept(parent).workspace
        changed = configuration.update.model_copy(update={"parent": resolve(parent)})
        configuration = configuration.model_copy(update={"update": changed})
        run_with_progress(configuration, workspace, needed_stages(configuration), quiet=quiet)
        if print_results(workspace, configuration.registry) and not quiet:
            print_next([f"{workspace.folder.uri}/{CONFIG}"], workspace)


def add_items(
    config: ConfigFile,
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="New items, in the form of the catalog.")] = None,
    overrides: Overrides = None,
    remove: Annotated[
        str | None, typer.Option(metavar="FILE", help="Items that are gone: a file with the column of the item ids.")
    ] = None,
) -> None:
    """Add items to the export between two trainings, and remove others; nothing is trained."""
    if file is None and remove is None:
        raise typer.BadParameter("give a file of new items, or --remove FILE")
    with settings(config, overrides) as (configuration, workspace):
        from alphafuse.storage.filesystem.folder import resolve
        from cluster.cli.run_log import redirect_output
        from monitoring.terminal.run_console import RunConsole

        with redirect_output(workspace.folder) as output:
            with RunConsole(output, failures=False) as console:
                from jobs import add_items as job

                new, gone = (None if path is None else resolve(path) for path in (file, remove))
                added = job.run(configuration, workspace, new, gone, console)
            left_out = f", {added.without_text:,} without text left out" if added.without_text else ""
            output.write(f"{added.items:,} items added{left_out}, {added.removed:,} removed\n")


def compare(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="YAML file.")],
    overrides: Overrides = None,
    redo: Annotated[list[str] | None, typer.Option(metavar="ROW", help="Run this row of the table again.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train methods with several seeds and write one table; finished runs are skipped."""
    from alphafuse.config import load_grid
    from alphafuse.storage.filesystem.folder import Folder, resolve
    from cluster.remote.credential_check import require_no_credentials

    with reported():
        settings, configs = load_grid(grid, overrides or ())
        for config in configs.values():
            require_no_credentials(config.model_dump(mode="json"))
        folder = Folder(resolve(settings.workspace))
        from cluster.cli.run_log import redirect_output

        with redirect_output(folder) as output:
            from jobs.comparison import compare
            from monitoring.comparison.comparison_table import to_markdown
            from monitoring.terminal.run_console import RunConsole

            with RunConsole(output, quiet=quiet) as console:
                comparison = compare.run(settings, configs, console, redo or ())
            output.write(printable(f"\n{to_markdown(comparison)}\ntable   {folder.uri}/comparison.md\n"))
    if comparison.failures:
        echo(f"error: {len(comparison.failures)} runs failed, see above", "red", err=True)
        raise typer.Exit(1)


def synth(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder or URI to write to.")],
    items: Annotated[int, typer.Option(min=2)] = 1_000_000,
    users: Annotated[int, typer.Option(min=1)] = 200_000,
    dim: Annotated[int, typer.Option(min=2, help="Dimension of the language embeddings.")] = 1024,
    interactions: Annotated[float, typer.Option(min=5, help="Interactions per user, on average.")] = 12.0,
    seed: Annotated[int, typer.Option(min=0)] = 22,
    ray_address: Annotated[str | None, typer.Option(help="Address of the Ray cluster, as for ray.address.")] = None,
) -> None:
    """Generate a catalog, its language embeddings and a log of any size, and a configuration that reads them."""
    from alphafuse.data.synthetic import SyntheticData
    from alphafuse.storage.filesystem.folder import Folder, resolve

    target = Folder(resolve(folder))
    data = SyntheticData(items, users, dim, seed, interactions)
    with reported():
        from alphafuse.config import RayConfig
        from cluster.cli.run_log import redirect_output
        from cluster.remote.credential_check import require_no_credentials
        from monitoring.terminal.run_console import RunConsole

        require_no_credentials({"FOLDER": folder})
        with redirect_output(target) as output, RunConsole(output) as console:
            from jobs import synth

            synth.run(data, target, RayConfig(address=ray_address), console)
    echo(f"try     alphafuse run {shlex.quote(f'{target.uri}/config.yaml')}")
