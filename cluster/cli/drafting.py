"""Writes the configuration that `alphafuse init` drafts, and says what was guessed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import yaml

from alphafuse.config import parse_config
from alphafuse.data.drafting.draft import Draft
from alphafuse.errors import ConfigError
from alphafuse.inputs import check_inputs
from alphafuse.stages import needed_stages
from cluster.remote.credential_check import require_no_credentials
from monitoring.terminal.safe_text import echo


def write_draft(draft: Callable[[], Draft], output: Path) -> None:
    """Write a draft that `alphafuse config validate` accepts; nothing is written where it does not.

    Raises:
        ConfigError: the file exists already, or cannot be written.
        DataError: a file cannot be read, or a column cannot be guessed.
    """
    if output.exists():
        raise ConfigError(f"{output} exists already; give another file with --output, or delete it")
    drafted = draft()
    content = drafted.yaml()
    config = parse_config(yaml.safe_load(content))
    require_no_credentials(config.model_dump(mode="json"))
    check_inputs(config, needed_stages(config))
    try:
        with output.open("x", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from error
    for note in drafted.notes():
        echo(note)
    path = shlex.quote(str(output))
    echo(f"written {path}\ntry     alphafuse config validate {path}\n        alphafuse run {path}")
