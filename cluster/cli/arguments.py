"""Shared parts of the commands: arguments, reading a configuration, and the translation of errors to exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from monitoring.terminal.safe_text import echo

if TYPE_CHECKING:
    from alphafuse.config import Config
    from alphafuse.storage.workspace import Workspace

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: train.learning_rate=1e-3.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress: warnings, errors and results alone.")]


class ExportFormat(StrEnum):
    """Forms in which a model is exported."""

    parquet = "parquet"
    usearch = "usearch"
    onnx = "onnx"


def program() -> str:
    """The path by which this program was called, which is needed outside of an active environment."""
    return min(sys.argv[0], os.path.relpath(sys.argv[0]), key=len)


@contextmanager
def settings(path: Path, overrides: Sequence[str] | None) -> Iterator[tuple[Config, Workspace]]:
    """Context with the configuration and the workspace of a command; reports errors (see `reported`)."""
    from alphafuse.storage.workspace import Workspace

    with reported():
        config = read_config(path, overrides)
        yield config, Workspace(config.workspace)


def read_config(path: Path, overrides: Sequence[str] | None) -> Config:
    """Read the configuration. It is stored and shown, so that it must hold no credentials.

    Raises:
        ConfigError: the configuration cannot be read, is wrong, or holds credentials.
    """
    from alphafuse.config import load_config
    from cluster.remote.credential_check import require_no_credentials

    config = load_config(path, overrides or ())
    require_no_credentials(config.model_dump(mode="json"))
    chosen = any(override.partition("=")[0].strip() == "workspace" for override in overrides or ())
    return config if chosen else _with_found_workspace(config, path)


def _with_found_workspace(config: Config, path: Path) -> Config:
    """The configuration with the workspace beside its file where the current folder has none: a relative `workspace`
    starts from the current folder, and is found again from any other one."""
    from alphafuse.storage.filesystem.folder import resolve
    from monitoring.run_log.finding import is_workspace

    beside = resolve(config.workspace, str(path.parent))
    if beside != resolve(config.workspace) and is_workspace(beside) and not is_workspace(config.workspace):
        return config.model_copy(update={"workspace": beside})
    return config


def end_like_ctrl_c() -> None:
    """Make SIGTERM end this program as Ctrl-C does; schedulers, containers and Ray stop programs with it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextmanager
def reported() -> Iterator[None]:
    """Context in which an error that a user can cure ends the command with its message, without a traceback."""
    from alphafuse.errors import AlphafuseError
    from alphafuse.extras import missing_package

    def fail(message: str) -> NoReturn:
        from cluster.remote.credential_check import mask

        echo(f"error: {mask(message)}", "red", err=True)
        raise typer.Exit(1) from None

    try:
        yield
    except AlphafuseError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        if (missing := missing_package(error)) is None:
            raise
        fail(str(missing))
    except BrokenPipeError:
        raise  # the reader of the output, such as `head`, has closed it
    except OSError as error:
        fail(f"a file, the storage or the network failed: {error}")
    except KeyboardInterrupt:
        advice = "the same command, without --redo, continues where it stopped"
        echo(f"interrupted; {advice}", "yellow", err=True)
        raise typer.Exit(130) from None
