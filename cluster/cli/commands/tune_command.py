"""The command `tune`, and the table that it ends with."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from alphafuse.stages import TRAIN, needed_stages
from cluster.cli.arguments import ConfigFile, Overrides, Quiet, program, reported
from monitoring.terminal.safe_text import SafeConsole, echo, printable

if TYPE_CHECKING:
    from alphafuse.storage.filesystem.folder import Folder
    from alphafuse.tuning.trials import Tuning


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(tune)


def tune(
    config: ConfigFile,
    space: Annotated[Path, typer.Argument(metavar="SPACE", help="YAML file of settings and distributions.")],
    overrides: Overrides = None,
    redo: Annotated[bool, typer.Option("--redo", help="Delete all earlier trials and begin anew.")] = False,
    quiet: Quiet = False,
) -> None:
    """Search for good settings by the validation metric; the same command goes on where it stopped."""
    with reported():
        from alphafuse.config.space import load_space
        from alphafuse.inputs import check_inputs
        from alphafuse.storage.filesystem.folder import Folder, resolve
        from alphafuse.tuning.trials import FAILED
        from cluster.cli.run_log import redirect_output
        from cluster.remote.credential_check import require_no_credentials
        from monitoring.terminal.run_console import RunConsole

        search_space = load_space(space, config, overrides or ())
        require_no_credentials(search_space.base.model_dump(mode="json"))
        if search_space.base.ray.address is None:
            check_inputs(search_space.base, needed_stages(search_space.base, TRAIN))
        folder = Folder(f"{resolve(search_space.base.workspace)}-tuned")
        with redirect_output(folder) as output:
            with RunConsole(output, quiet=quiet) as console:
                from jobs.tuning import tune as job

                tuning = job.run(search_space, folder, console, redo)
            _print_trials(tuning, folder, output)
    failed = sum(trial.state == FAILED for trial in tuning.trials)
    if failed or tuning.best is None:
        lack = f"{failed} trials failed, see above" if failed else "no trial has been validated: give more minutes"
        echo(f"error: {lack}", "red", err=True)
        raise typer.Exit(1)


def _print_trials(tuning: Tuning, folder: Folder, output: TextIO) -> None:
    """Print the trials, the best one first, and what to do with it."""
    from rich.table import Table

    from alphafuse.tuning.trials import FAILED
    from monitoring.presentation.formats import duration, number

    keys = list(tuning.trials[0].settings) if tuning.trials else []
    table = Table("trial", "state", tuning.metric.upper(), "epoch", "time", *short_keys(keys), box=None)
    for trial in tuning.ranked():
        best = ("–", "–") if trial.best is None else (f"{trial.best[1]:.4f}", f"{trial.best[0]} of {trial.epochs}")
        values = (number(trial.settings[key]) for key in keys)
        style = "bold" if trial is tuning.best else "dim" if trial.state == FAILED else None
        table.add_row(trial.name, trial.state, *best, duration(trial.seconds), *values, style=style)
    SafeConsole(file=output).print("", table)
    if tuning.best is not None:
        path = f"{folder.uri}/best.yaml"
        output.write(printable(f"\nbest    {path}\ntry     {shlex.join([program(), 'run', path])}\n"))


def short_keys(keys: Sequence[str]) -> list[str]:
    """The last parts of dotted keys, and the whole keys where these are alike."""
    uses = Counter(key.rsplit(".", 1)[-1] for key in keys)
    return [last if uses[last := key.rsplit(".", 1)[-1]] == 1 else key for key in keys]
