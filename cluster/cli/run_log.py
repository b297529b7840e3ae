"""Writes the output of dependencies, and tracebacks, to a log file in the workspace of a command."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import typer

from alphafuse.errors import AlphafuseError, WorkspaceError
from alphafuse.extras import missing_package
from alphafuse.storage.filesystem.folder import Folder
from monitoring.terminal.output_redirect import output_to_file
from monitoring.terminal.safe_text import echo, printable

LOG = "logs/run.log"
"""Path in the workspace."""


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
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and (missing := missing_package(error)):
                raise missing from None
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
