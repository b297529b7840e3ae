"""Runs the prepare stage in this process, task after task, for tests of many small inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from alphafuse.config import Config
from alphafuse.events import Listener
from alphafuse.storage.workspace import Workspace
from jobs.stages import prepare


def prepare_here(config: Config, listen: Listener, patch: pytest.MonkeyPatch) -> None:
    """Run the stage as `prepare.run` does, with calls of functions in place of Ray's tasks."""

    def in_order(submit: Callable[[Any], Any], arguments: Iterable[Any], limit: int) -> Iterator[Any]:
        return map(submit, arguments)

    find_all = SimpleNamespace(remote=_function(prepare.tasks.find_all))
    patch.setattr(prepare.tasks, "find_all", SimpleNamespace(options=lambda **_: find_all))
    patch.setattr(prepare, "in_order", in_order)
    patch.setattr(prepare, "result", lambda value: value)
    patch.setattr(prepare, "task_slots", lambda *_: 1)
    patch.setattr(prepare._Stage, "task", lambda self, task: _function(task))
    prepare.run(config, Workspace(config.workspace), listen)


def _function(task: Any) -> Callable[..., Any]:
    """The function that a Ray task was made from."""
    function: Callable[..., Any] = task._function
    return function
