"""Runs stages on the command line: shows progress and results, and writes the output of dependencies to a log file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import typer
from rich.console import Console
from rich.table import Table

from alphafuse.config import Config
from alphafuse.errors import AlphafuseError, WorkspaceError
from alphafuse.evaluation.ranking_metrics import measured_cutoffs
from alphafuse.stages import Stage
from alphafuse.storage.folder import Folder
from alphafuse.storage.workspace import Workspace
from monitoring.terminal.output_redirect import output_to_file
from monitoring.terminal.run_console import RunConsole

LOG = "logs/run.log"
"""Log file in the workspace, for the output of dependencies and for tracebacks."""


@contextmanager
def redirect_output(folder: Folder) -> Iterator[TextIO]:
    """Yields standard output; until the end of the block, output of dependencies goes to `logs/run.log` of a folder."""
    with _log_of(folder) as log, output_to_file(log) as (output, errors):
        try:
            yield output
        except (AlphafuseError, KeyboardInterrupt):
            raise
        except OSError:  # the machine or the storage failed: the command shows the message, the log the traceback
            traceback.print_exc()
            raise
        except Exception:
            traceback.print_exc(file=errors)
            errors.write(f"unexpected error; the output before it is in {folder.uri}/{LOG}\n")
            raise typer.Exit(2) from None


@contextmanager
def _log_of(folder: Folder) -> Iterator[Path]:
    """Path of `logs/run.log` in a local folder; for a remote folder, a temporary file, appended to it at the end."""
    if "://" not in folder.uri:
        log = Path(folder.uri) / LOG
        made = [path for path in (log, *log.parents) if not path.exists()]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot write into the folder {folder.uri}: {error.strerror}") from error
        try:
            yield log
        finally:
            _remove_empty(made)
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
        except (OSError, AlphafuseError) as error:  # never hides the result of the command itself
            print(f"! {folder.uri}/{LOG} cannot be written ({error}): it stays in {log}", file=sys.stderr)


def _remove_empty(paths: Sequence[Path]) -> None:
    """Delete a log that was made for a command which left nothing, and the folders around it; the deepest first."""
    with suppress(OSError):
        for path in paths:
            if path.is_dir():
                path.rmdir()
            elif path.stat().st_size == 0:
                path.unlink()


def run_with_progress(
    settings: Config, workspace: Workspace, stages: Sequence[Stage], again: Stage | None = None
) -> None:
    """Run stages as `jobs.pipeline.run_stages` does, with progress on standard output."""
    monitor = settings.train.monitor
    with redirect_output(workspace.folder) as output, RunConsole(output, monitor, failures=False) as console:
        from jobs.pipeline import run_stages

        run_stages(settings, workspace, stages, console, again)


def print_results(workspace: Workspace) -> bool:
    """Print the metrics and the path of the report; returns False if there is no evaluation."""
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
    """Print commands to try after a run, with the same arguments."""
    # The path by which this program was called, which is needed outside of an active environment.
    program = min(sys.argv[0], os.path.relpath(sys.argv[0]), key=len)
    console = Console(file=sys.stdout, highlight=False)
    console.print(
        "try     " + f'{program} recommend {arguments} --history "{_example(workspace)}"', markup=False, soft_wrap=True
    )
    console.print(f"        {program} run {arguments} --redo train --set train.learning_rate=1e-3", soft_wrap=True)


def _example(workspace: Workspace) -> str:
    """Titles of a real history, as an example."""
    manifest = workspace.artifact("recommendations").manifest()
    examples = manifest.details["examples"] if manifest is not None else []
    return ",".join(examples[0]["history"][-2:]) if examples else "TITLE,TITLE"
