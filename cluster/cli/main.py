"""The command `alphafuse`: parses its arguments and calls the packages, nothing more.

Heavy modules are imported inside of the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib.metadata
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from alphafuse.stages import EVALUATE, EXPORT, RECOMMEND, REPORT, STAGES, Stage, find_stage, needed_stages
from cluster.cli import cluster_commands as cluster_cli
from cluster.cli.arguments import (
    ConfigFile,
    ExportFormat,
    Overrides,
    Quiet,
    end_like_ctrl_c,
    reported,
    settings,
)
from cluster.cli.models_commands import models_app
from cluster.cli.tune_command import tune
from jobs.execution.token_file import show_token_to_clusters
from monitoring.terminal.safe_text import SafeConsole, echo, one_line, printable

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
config_app = typer.Typer(no_args_is_help=True, help="Look at a configuration without running it.")
app.add_typer(config_app, name="config")
app.add_typer(models_app, name="models")
cluster_cli.register(app)
app.command()(tune)

RedoFlag = Annotated[
    bool, typer.Option("--redo", help="Make this stage's and all later results again; the old ones stay until then.")
]


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


@app.command()
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


@app.command()
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
        from alphafuse.storage.folder import resolve
        from alphafuse.storage.workspace import CONFIG
        from cluster.cli.running import print_next, print_results, run_with_progress

        if configuration.registry is not None and (parent in NAMES or is_version_id(parent)):
            parent = Registry(configuration.registry).kept(parent).workspace
        changed = configuration.update.model_copy(update={"parent": resolve(parent)})
        configuration = configuration.model_copy(update={"update": changed})
        run_with_progress(configuration, workspace, needed_stages(configuration), quiet=quiet)
        if print_results(workspace, configuration.registry) and not quiet:
            print_next([f"{workspace.folder.uri}/{CONFIG}"], workspace)


@app.command("add-items")
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
        from alphafuse.storage.folder import resolve
        from cluster.cli.run_log import redirect_output
        from monitoring.terminal.run_console import RunConsole

        with redirect_output(workspace.folder) as output:
            with RunConsole(output, failures=False) as console:
                from jobs import add_items as job

                new, gone = (None if path is None else resolve(path) for path in (file, remove))
                added = job.run(configuration, workspace, new, gone, console)
            left_out = f", {added.without_text:,} without text left out" if added.without_text else ""
            output.write(f"{added.items:,} items added{left_out}, {added.removed:,} removed\n")


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(config: ConfigFile, overrides: Overrides = None, redo: RedoFlag = False, quiet: Quiet = False) -> None:
        with settings(config, overrides) as (configuration, workspace):
            from cluster.cli.running import run_with_progress

            run_with_progress(configuration, workspace, [stage], stage if redo else None, quiet)

    return command


for _stage in STAGES:
    if _stage not in (EVALUATE, RECOMMEND, EXPORT):  # which have options of their own
        app.command(_stage.name, help=_stage.help)(_stage_command(_stage))


@app.command(EVALUATE.name, help=EVALUATE.help)
def evaluate(
    config: ConfigFile,
    overrides: Overrides = None,
    shuffle: Annotated[
        bool,
        typer.Option("--shuffle-histories", help="Also after histories in random order: evaluate.shuffle_histories."),
    ] = False,
    redo: RedoFlag = False,
    quiet: Quiet = False,
) -> None:
    asked = ["evaluate.shuffle_histories=true"] if shuffle else []
    with settings(config, [*(overrides or []), *asked]) as (configuration, workspace):
        from cluster.cli.running import print_results, run_with_progress

        run_with_progress(configuration, workspace, [EVALUATE], EVALUATE if redo else None, quiet)
        if shuffle and not quiet:
            print_results(workspace)


@app.command(EXPORT.name, help=EXPORT.help)
def export(
    config: ConfigFile,
    overrides: Overrides = None,
    formats: Annotated[
        list[ExportFormat] | None,
        typer.Option("--format", help="Files beside weights and Parquet: export.index, export.onnx."),
    ] = None,
    redo: RedoFlag = False,
    quiet: Quiet = False,
) -> None:
    with settings(config, overrides) as (configuration, workspace):
        from cluster.cli.running import run_with_progress

        asked = {ExportFormat.usearch: "index", ExportFormat.onnx: "onnx"}  # Parquet is always written
        update = {asked[each]: True for each in formats or () if each in asked}
        exported = configuration.export.model_copy(update=update)
        configuration = configuration.model_copy(update={"export": exported})
        run_with_progress(configuration, workspace, [EXPORT], EXPORT if redo else None, quiet)


@app.command(help=RECOMMEND.help)
def recommend(
    config: ConfigFile,
    overrides: Overrides = None,
    history: Annotated[
        str | None, typer.Option(metavar="TITLES", help='Titles or ids, oldest first: "Toy Story,Heat".')
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Number of items; default: recommend.top_k.")] = None,
    redo: RedoFlag = False,
    quiet: Quiet = False,
) -> None:
    with settings(config, overrides) as (configuration, workspace):
        if history is None:
            if top_k is not None:
                raise typer.BadParameter("goes with --history; for all users, --set recommend.top_k=N")
            from cluster.cli.running import run_with_progress

            run_with_progress(configuration, workspace, [RECOMMEND], RECOMMEND if redo else None, quiet)
            return
        from rich.table import Table

        from cluster.cli.run_log import redirect_output

        with redirect_output(workspace.folder) as output:
            from jobs.stages.recommend_history import recommend_for_history

            items = recommend_for_history(configuration, workspace, history.split(","), top_k)
            table = Table("", "title", "item", "score", title=f"After {history}", title_justify="left", box=None)
            for place, item in enumerate(items, start=1):
                table.add_row(str(place), one_line(item.title), one_line(item.item_id), f"{item.score:.3f}")
            SafeConsole(file=output).print(table, markup=False)


@app.command()
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


@app.command()
def compare(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="YAML file.")],
    overrides: Overrides = None,
    redo: Annotated[list[str] | None, typer.Option(metavar="ROW", help="Run this row of the table again.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train methods with several seeds and write one table; finished runs are skipped."""
    from alphafuse.config import load_grid
    from alphafuse.storage.folder import Folder, resolve
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


@app.command()
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


@app.command()
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
    from alphafuse.storage.folder import Folder, resolve

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


@app.command()
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


@app.command()
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


@app.command()
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
