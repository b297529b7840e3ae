"""Stands in for Ray Train where a test is about what the workers do: the same functions on gloo ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.multi_process import run_ranks

from alphafuse.config import Config
from alphafuse.config.resources import RankResources
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Event, Listener, ignore
from alphafuse.storage.workspace import Workspace
from jobs.execution.worker_metrics import Serving
from jobs.stages import evaluate, export, recommend, train


def run_on_gloo(
    stage: str,
    function: Any,
    resources: RankResources,
    arguments: dict[str, Any],
    listen: Listener,
    serving: Serving | None = None,
    resumes: bool = False,
) -> Any:
    """Stand in for `run_workers`; events arrive when all is done. A single worker runs in this process."""
    if resources.workers == 1:
        result, events = _call(function, arguments)
    else:
        (result, events), *_ = run_ranks(resources.workers, _call, function, arguments)
    for event in events:
        listen(event)
    return result


@contextlib.contextmanager
def without_ray() -> Iterator[pytest.MonkeyPatch]:
    """In this block the stages that run on ranks do so on gloo's."""
    with pytest.MonkeyPatch.context() as patch:
        for job in (train, evaluate, recommend, export):
            patch.setattr(job, "run_workers", run_on_gloo)
        yield patch


def train_without_ray(config: Config) -> None:
    """The stage `train` on this process alone, which is the one rank of a group."""
    with without_ray():
        train.run(config, Workspace(config.workspace), ignore)


def _call(function: Any, arguments: dict[str, Any]) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    result = function(communicator=Communicator(), device=torch.device("cpu"), listen=events.append, **arguments)
    return result, events
