"""What the commands of the command line share: their arguments, and how errors end them."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from alphafuse.config import Config
    from alphafuse.storage.workspace import Workspace

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: train.learning_rate=1e-3.")
]


@contextmanager
def settings(path: Path, overrides: Sequence[str] | None) -> Iterator[tuple[Config, Workspace]]:
    """Configuration and workspace."""
    from alphafuse.storage.workspace import Workspace

    with reported():
        config = read_config(path, overrides)
        yield config, Workspace(config.workspace)


def read_config(path: Path, overrides: Sequence[str] | None) -> Config:
    """The configuration, which is kept and shown, and so must hold no credentials.

    Raises:
        ConfigError: it cannot be read, is wrong, or holds credentials.
    """
    from alphafuse.config import load_config
    from cluster.remote.credential_check import require_no_credentials

    config = load_config(path, overrides or ())
    require_no_credentials(config.model_dump(mode="json"))
    return config


def end_like_ctrl_c() -> None:
    """From now on SIGTERM, by which schedulers, containers and Ray stop a program, ends it as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextmanager
def reported() -> Iterator[None]:
    """Errors that a user can cure end the command with their message alone."""
    from alphafuse.errors import AlphafuseError

    try:
        yield
    except AlphafuseError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    except BrokenPipeError:
        raise  # whoever read the output wants no more of it
    except OSError as error:
        typer.secho(f"error: a file, the storage or the network failed: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        advice = "the same command, without --redo, continues where it stopped"
        typer.secho(f"interrupted; {advice}", fg="yellow", err=True)
        raise typer.Exit(130) from None
