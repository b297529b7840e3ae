"""The command `alphafuse`: parses and calls, nothing more.

What is heavy to import is imported inside of the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from alphafuse.config import Config
    from alphafuse.storage import Folder
    from alphafuse.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sequential recommenders whose item embeddings keep what a language model knows.",
)
config_app = typer.Typer(no_args_is_help=True, help="Look at a configuration without running it.")
app.add_typer(config_app, name="config")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: train.learning_rate=1e-3.")
]

RedoFlag = Annotated[bool, typer.Option("--redo", help="Delete what this stage and later ones have made first.")]

STAGE_HELP = {
    "prepare": "Read catalog and interactions, split the users, write shards.",
    "embed": "Embed the catalog's texts with a language model.",
    "decompose": "Split the embedding space into row space and null space.",
    "train": "Train the recommender, or continue a training.",
    "evaluate": "Rank the full catalog for every test target.",
    "export": "Write item vectors and weights for an index or a serving system.",
    "report": "Write the HTML page of the run.",
}


def main() -> None:
    """Entry point of the console script."""
    app()


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    redo: Annotated[str | None, typer.Option(metavar="STAGE", help="Make this stage and all later ones again.")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
) -> None:
    """Run all stages; what is done already is skipped."""
    with _settings(config, overrides) as (settings, workspace):
        from jobs import pipeline

        _run_stages(settings, workspace, pipeline.needed_stages(settings, until), redo)
        _print_results(" ".join([str(config), *(f"--set {shlex.quote(o)}" for o in overrides or ())]), workspace)


def _stage_command(stage: str) -> Callable[..., None]:
    def command(config: ConfigFile, overrides: Overrides = None, redo: RedoFlag = False) -> None:
        with _settings(config, overrides) as (settings, workspace):
            _run_stages(settings, workspace, [stage], stage if redo else None)

    return command


for _stage, _help in STAGE_HELP.items():
    app.command(_stage, help=_help)(_stage_command(_stage))


@app.command()
def recommend(
    config: ConfigFile,
    overrides: Overrides = None,
    history: Annotated[
        str | None, typer.Option(metavar="TITLES", help='Titles or ids, oldest first: "Toy Story,Heat".')
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="How many; default: recommend.top_k.")] = None,
    redo: RedoFlag = False,
) -> None:
    """Write the top items of many users, or show those of one history."""
    with _settings(config, overrides) as (settings, workspace):
        if history is None:
            if top_k is not None:
                raise typer.BadParameter("goes with --history; for all users, --set recommend.top_k=N")
            _run_stages(settings, workspace, ["recommend"], "recommend" if redo else None)
            return
        from rich.console import Console
        from rich.table import Table

        with _quiet(workspace.folder) as output:
            from jobs.recommend import recommend_for_history

            items = recommend_for_history(settings, workspace, history.split(","), top_k)
            table = Table("", "title", "item", "score", title=f"After {history}", title_justify="left", box=None)
            for place, item in enumerate(items, start=1):
                table.add_row(str(place), item.title, item.item_id, f"{item.score:.3f}")
            Console(file=output).print(table, markup=False)


@app.command()
def compare(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="YAML file.")],
    overrides: Overrides = None,
    redo: Annotated[list[str] | None, typer.Option(metavar="METHOD", help="Train this method again.")] = None,
) -> None:
    """Train methods with several seeds and write one table; what is done already is skipped."""
    from alphafuse.config import load_grid
    from alphafuse.storage import Folder, resolve

    with _reported():
        settings, configs = load_grid(grid, overrides or ())
        folder = Folder(resolve(settings.workspace))
        with _quiet(folder) as output:
            from jobs import compare
            from monitoring.comparison.table import to_markdown
            from monitoring.console import RunConsole

            with RunConsole(output) as console:
                comparison = compare.run(settings, configs, console, redo or ())
            output.write(f"\n{to_markdown(comparison)}\ntable   {folder.uri}/comparison.md\n")
    if comparison.failures:
        typer.secho(f"error: {len(comparison.failures)} runs failed, see above", fg="red", err=True)
        raise typer.Exit(1)


@app.command()
def synth(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder or URI to write to.")],
    items: Annotated[int, typer.Option(min=2)] = 1_000_000,
    users: Annotated[int, typer.Option(min=1)] = 200_000,
    dim: Annotated[int, typer.Option(min=2, help="Of the language embeddings.")] = 1024,
    interactions: Annotated[float, typer.Option(min=5, help="Of a user, on average.")] = 12.0,
    seed: Annotated[int, typer.Option(min=0)] = 22,
    ray_address: Annotated[str | None, typer.Option(help="As ray.address.")] = None,
) -> None:
    """Write a made-up catalog, its language embeddings and a log of any size, and a configuration that reads them."""
    from alphafuse.data.synthetic import SyntheticData
    from alphafuse.storage import Folder, resolve

    target = Folder(resolve(folder))
    data = SyntheticData(items, users, dim, seed, interactions)
    with _reported(), _quiet(target) as output:
        from alphafuse.config import RayConfig
        from jobs import synth
        from monitoring.console import RunConsole

        with RunConsole(output) as console:
            synth.run(data, target, RayConfig(address=ray_address), console)
    typer.echo(f"try     alphafuse run {target.uri}/config.yaml")


@app.command()
def verify(
    config: ConfigFile,
    overrides: Overrides = None,
    repair: Annotated[bool, typer.Option("--repair", help="Delete what is damaged: `run` makes it again.")] = False,
) -> None:
    """Compare every committed file of the workspace with its checksum, for instance after a copy."""
    with _settings(config, overrides) as (_, workspace):
        from alphafuse.errors import WorkspaceError
        from alphafuse.workspace import ARTIFACT_STAGES

        manifests = {name: workspace.artifact(name).manifest() for name in ARTIFACT_STAGES}
        if not any(manifests.values()):
            raise WorkspaceError(f"{workspace.folder.uri} holds no finished stage: is `workspace` right?")
        for name, manifest in manifests.items():
            if manifest is None:
                continue
            damaged = workspace.repair(name) if repair else []
            if not repair:
                workspace.artifact(name).verify()
            whole = len(manifest.files) - len(damaged)
            typer.echo(f"{name}: {whole} files as committed" + f", deleted {', '.join(damaged)}" * bool(damaged))


@config_app.command("show")
def config_show(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print the whole configuration, defaults included."""
    import yaml

    with _settings(config, overrides) as (settings, _):
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)


@config_app.command("validate")
def config_validate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Check a configuration."""
    with _settings(config, overrides):
        typer.echo(f"{config} is valid")


@contextmanager
def _settings(path: Path, overrides: Sequence[str] | None) -> Iterator[tuple[Config, Workspace]]:
    """Configuration and workspace."""
    from alphafuse.config import load_config
    from alphafuse.workspace import Workspace

    with _reported():
        settings = load_config(path, overrides or ())
        yield settings, Workspace(settings.workspace)


@contextmanager
def _reported() -> Iterator[None]:
    """Errors that a user can cure end the command with their message alone."""
    from alphafuse.errors import AlphafuseError

    try:
        yield
    except AlphafuseError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        advice = "the same command, without --redo, continues where it stopped"
        typer.secho(f"interrupted; {advice}", fg="yellow", err=True)
        raise typer.Exit(130) from None


@contextmanager
def _quiet(folder: Folder) -> Iterator[TextIO]:
    """Standard output for our own words, while what dependencies print goes to a file."""
    import tempfile

    from alphafuse.errors import AlphafuseError, WorkspaceError
    from monitoring.quiet import chatter_to_file

    remote = "://" in folder.uri
    log = (Path(tempfile.mkdtemp(prefix="alphafuse-")) if remote else Path(folder.uri) / "logs") / "run.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"cannot write into the folder {folder.uri}: {error.strerror}") from error
    with chatter_to_file(log) as (output, errors):
        try:
            yield output
        except (AlphafuseError, KeyboardInterrupt):
            raise
        except Exception:
            traceback.print_exc(file=errors)
            errors.write(f"this should not happen; what came before it stands in {log}\n")
            raise typer.Exit(2) from None


def _run_stages(settings: Config, workspace: Workspace, stages: Sequence[str], again: str | None = None) -> None:
    from monitoring.console import RunConsole
    from monitoring.event_log import EventLog

    with _quiet(workspace.folder) as output, RunConsole(output, settings.train.monitor) as console:
        from jobs.pipeline import run_stages

        log = EventLog(workspace)

        def listen(event: Any) -> None:
            log(event)
            console(event)

        run_stages(settings, workspace, stages, listen, again)


def _print_results(arguments: str, workspace: Workspace) -> None:
    """The metrics table, where the report is, and what to try next with the same arguments."""
    from rich.console import Console
    from rich.table import Table

    from alphafuse.evaluation.metrics import measured_cutoffs

    # As it was called: outside of an active environment the path is needed.
    program = min(sys.argv[0], os.path.relpath(sys.argv[0]), key=len)
    console = Console(file=sys.stdout, highlight=False)
    evaluation = workspace.artifact("evaluation")
    if evaluation.manifest() is None:
        return
    result = json.loads(evaluation.folder.read_bytes("metrics.json"))
    title = (
        f"{result['split']} · {result['queries']:,} targets · {result['num_items']:,} items · {result['similarity']}"
    )
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("")
    cutoffs = measured_cutoffs(result["overall"])
    for cutoff in cutoffs:
        table.add_column(f"@{cutoff}", justify="right")
    for name in ("hr", "ndcg", "mrr"):
        table.add_row(name.upper(), *(f"{result['overall'][f'{name}@{k}']:.4f}" for k in cutoffs))
    console.print()
    console.print(table)
    if workspace.artifact("report").manifest() is not None:
        console.print(f"\nreport  {workspace.folder.uri}/report/index.html", soft_wrap=True)
    console.print(
        "try     " + f'{program} recommend {arguments} --history "{_example(workspace)}"', markup=False, soft_wrap=True
    )
    console.print(f"        {program} run {arguments} --redo train --set train.learning_rate=1e-3", soft_wrap=True)


def _example(workspace: Workspace) -> str:
    """Titles of a real history, to try by hand."""
    manifest = workspace.artifact("recommendations").manifest()
    examples = manifest.details["examples"] if manifest is not None else []
    return ",".join(examples[0]["history"][-2:]) if examples else "TITLE,TITLE"
