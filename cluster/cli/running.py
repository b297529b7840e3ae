"""Runs stages for a person: words of ours on standard output, results at the end, what dependencies print in a file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import typer
from rich.console import Console
from rich.table import Table

from alphafuse.config import Config
from alphafuse.errors import AlphafuseError, WorkspaceError
from alphafuse.evaluation.ranking_metrics import measured_cutoffs
from alphafuse.storage.folder import Folder
from alphafuse.storage.workspace import Workspace
from monitoring.terminal.output_redirect import chatter_to_file
from monitoring.terminal.run_console import RunConsole

LOG = "logs/run.log"
"""What dependencies printed, and tracebacks."""


@contextmanager
def quiet(folder: Folder) -> Iterator[TextIO]:
    """Standard output for our own words, while what dependencies print goes to `logs/run.log` of a folder."""
    with _log_of(folder) as log, chatter_to_file(log) as (output, errors):
        try:
            yield output
        except (AlphafuseError, KeyboardInterrupt):
            raise
        except OSError:  # of the machine or the storage, and told as such; where it came up stands in the log
            traceback.print_exc()
            raise
        except Exception:
            traceback.print_exc(file=errors)
            errors.write(f"this should not happen; what came before it stands in {folder.uri}/{LOG}\n")
            raise typer.Exit(2) from None


@contextmanager
def _log_of(folder: Folder) -> Iterator[Path]:
    """The file `logs/run.log` of a folder; where that is no local one, a temporary file, added to it at the end."""
    if "://" not in folder.uri:
        log = Path(folder.uri) / LOG
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot write into the folder {folder.uri}: {error.strerror}") from error
        yield log
        return
    log = Path(tempfile.mkdtemp(prefix="alphafuse-")) / "run.log"
    logs = folder / "logs"
    try:
        yield log
    finally:
        try:
            if content := log.read_bytes():
                earlier = logs.read_bytes(log.name) if logs.exists(log.name) else b""
                logs.write_bytes(log.name, earlier + content)
            shutil.rmtree(log.parent)
        except (OSError, AlphafuseError) as error:  # no error of the command: whatever that ended with stays its end
            print(f"! {folder.uri}/{LOG} cannot be written ({error}): it stays in {log}", file=sys.stderr)


def run_and_tell(settings: Config, workspace: Workspace, stages: Sequence[str], again: str | None = None) -> None:
    """Run stages as `jobs.pipeline.run_stages` does, with progress on standard output."""
    with quiet(workspace.folder) as output, RunConsole(output, settings.train.monitor, failures=False) as console:
        from jobs.pipeline import run_stages

        run_stages(settings, workspace, stages, console, again)


def print_results(workspace: Workspace) -> bool:
    """The metrics table, and where the report is; False where nothing has been measured."""
    console = Console(file=sys.stdout, highlight=False)
    evaluation = workspace.artifact("evaluation")
    if evaluation.manifest() is None:
        return False
    result = json.loads(evaluation.folder.read_bytes("metrics.json"))
    title = (
        f"{result['split']} · {result['queries']:,} targets · {result['num_items']:,} items · {result['similarity']} · "
        f"seen items left {'out' if result['exclude_seen'] else 'in'}"
    )
    table = Table(box=None)
    table.add_column("")
    cutoffs = measured_cutoffs(result["overall"])
    for cutoff in cutoffs:
        table.add_column(f"@{cutoff}", justify="right")
    for name in ("hr", "ndcg", "mrr"):
        table.add_row(name.upper(), *(f"{result['overall'][f'{name}@{k}']:.4f}" for k in cutoffs))
    console.print(f"\n{title}", markup=False, soft_wrap=True)
    console.print(table)
    if workspace.artifact("report").manifest() is not None:
        console.print(f"\nreport  {workspace.folder.uri}/report/index.html", soft_wrap=True)
    return True


def print_next(arguments: str, workspace: Workspace) -> None:
    """What to try after a run, with the same arguments."""
    # As it was called: outside of an active environment the path is needed.
    program = min(sys.argv[0], os.path.relpath(sys.argv[0]), key=len)
    console = Console(file=sys.stdout, highlight=False)
    console.print(
        "try     " + f'{program} recommend {arguments} --history "{_example(workspace)}"', markup=False, soft_wrap=True
    )
    console.print(f"        {program} run {arguments} --redo train --set train.learning_rate=1e-3", soft_wrap=True)


def _example(workspace: Workspace) -> str:
    """Titles of a real history, to try by hand."""
    manifest = workspace.artifact("recommendations").manifest()
    examples = manifest.details["examples"] if manifest is not None else []
    return ",".join(examples[0]["history"][-2:]) if examples else "TITLE,TITLE"
