"""Replaces Ray Train in tests about the work of the workers: the same functions run on gloo ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.processes.multi_process import run_ranks

from alphafuse.config import Config
from alphafuse.config.sections.resources import RankResources
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Event, Listener, ignore
from alphafuse.storage.workspace import Workspace
from jobs.execution.reporting.worker_metrics import Serving
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
    """Replacement of `run_workers`; events arrive when all is done. A single worker runs in this process."""
    if resources.workers == 1:
        result, events = _call(function, arguments)
    else:
        (result, events), *_ = run_ranks(resources.workers, _call, function, arguments)
    for event in events:
        listen(event)
    return result


@contextlib.contextmanager
def without_ray() -> Iterator[pytest.MonkeyPatch]:
    """Context in which the stages that run on ranks use gloo ranks."""
    with pytest.MonkeyPatch.context() as patch:
        for job in (train, evaluate, recommend, export):
            patch.setattr(job, "run_workers", run_on_gloo)
        patch.setattr(train, "short_of_memory", lambda *_: None)  # the machines of a Ray cluster are asked
        yield patch


def train_without_ray(config: Config) -> None:
    """Run the stage `train` in this process, as the only rank."""
    with without_ray():
        train.run(config, Workspace(config.workspace), ignore)


def _call(function: Any, arguments: dict[str, Any]) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    result = function(communicator=Communicator(), device=torch.device("cpu"), listen=events.append, **arguments)
    return result, events
