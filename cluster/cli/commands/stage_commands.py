"""The commands of single stages, in their order; `evaluate`, `export` and `recommend` have options of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from alphafuse.stages import EVALUATE, EXPORT, RECOMMEND, STAGES, Stage
from cluster.cli.arguments import ConfigFile, ExportFormat, Overrides, Quiet, settings
from monitoring.terminal.safe_text import SafeConsole, one_line

RedoFlag = Annotated[
    bool, typer.Option("--redo", help="Make this stage's and all later results again; the old ones stay until then.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    own: dict[str, Callable[..., None]] = {EVALUATE.name: evaluate, EXPORT.name: export, RECOMMEND.name: recommend}
    for stage in STAGES:
        app.command(stage.name, help=stage.help)(own.get(stage.name) or _stage_command(stage))


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(config: ConfigFile, overrides: Overrides = None, redo: RedoFlag = False, quiet: Quiet = False) -> None:
        with settings(config, overrides) as (configuration, workspace):
            from cluster.cli.running import run_with_progress

            run_with_progress(configuration, workspace, [stage], stage if redo else None, quiet)

    return command


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
