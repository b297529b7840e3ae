"""Runs stages on the command line: shows progress and results, and writes the output of dependencies to a log file."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import numpy as np
import typer
from rich.table import Table

from alphafuse.config import Config
from alphafuse.data.catalog_lookup import item_names
from alphafuse.data.popularity import load_popularity
from alphafuse.errors import AlphafuseError, WorkspaceError
from alphafuse.evaluation.ranking_metrics import measured_cutoffs
from alphafuse.inputs import check_inputs
from alphafuse.stages import Stage, require_among
from alphafuse.storage.folder import Folder
from alphafuse.storage.workspace import Workspace
from monitoring.terminal.output_redirect import output_to_file
from monitoring.terminal.run_console import RunConsole
from monitoring.terminal.safe_text import SafeConsole, echo, one_line, printable

LOG = "logs/run.log"
"""Log file in the workspace, for the output of dependencies and for tracebacks."""
EXAMPLES = 100
"""Number of popular items among which two are looked for that can be typed."""
MAX_TYPED = 80


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
            errors.write(printable(traceback.format_exc()))
            errors.write(printable(f"unexpected error; the output before it is in {folder.uri}/{LOG}\n"))
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
            echo(f"! {folder.uri}/{LOG} cannot be written ({error}): it stays in {log}", err=True)


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
    """Run stages as `jobs.pipeline.run_stages` does, with progress on standard output. What they read is checked before
    anything is started or written, if they run on this machine; on a cluster, the stages check it."""
    require_among(stages, again)
    if settings.ray.address is None:
        check_inputs(settings, stages)
    monitor = settings.train.monitor
    with redirect_output(workspace.folder) as output, RunConsole(output, monitor, failures=False) as console:
        from jobs.pipeline import run_stages

        run_stages(settings, workspace, stages, console, again)


def print_results(workspace: Workspace) -> bool:
    """Print the metrics and the path of the report; returns False if there is no evaluation."""
    console = SafeConsole(file=sys.stdout)
    evaluation = workspace.artifact("evaluation")
    if evaluation.manifest() is None:
        return False
    result = json.loads(evaluation.read_file("metrics.json"))
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
        console.print(f"\nreport  {workspace.folder.uri}/report/index.html", markup=False, soft_wrap=True)
    return True


def print_next(arguments: Sequence[str], workspace: Workspace) -> None:
    """Print commands to try after a run, with the same arguments, as a shell takes them."""
    # The path by which this program was called, which is needed outside of an active environment.
    program = min(sys.argv[0], os.path.relpath(sys.argv[0]), key=len)
    again = ["--redo", "train", "--set", "train.learning_rate=1e-3"]
    echo("try     " + shlex.join([program, "recommend", *arguments, "--history", _example(workspace)]))
    echo("        " + shlex.join([program, "run", *arguments, *again]))


def _example(workspace: Workspace) -> str:
    """Titles of two popular items, as an example of a history; the id of an item whose title cannot be typed."""
    popular = np.argsort(-load_popularity(workspace), kind="stable")[:EXAMPLES]
    table = item_names(workspace.artifact("catalog"), popular)
    names = dict(zip(table["item_index"].to_pylist(), table.select(["title", "item_id"]).to_pylist(), strict=True))
    shown: dict[str, str] = {}
    for item in popular.tolist():
        typed = [name for name in names[item].values() if name and one_line(name) == name and len(name) <= MAX_TYPED]
        if typed:
            shown.setdefault(typed[0].strip().lower(), typed[0])
    return ",".join(list(shown.values())[:2]) if len(shown) > 1 else "TITLE,TITLE"
