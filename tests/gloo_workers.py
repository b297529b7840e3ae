"""Stands in for Ray Train where a test is about what the workers do: the same functions on gloo ranks."""

from __future__ import annotations

from typing import Any

import torch
from multi_process import run_ranks

from alphafuse.collectives import Communicator
from alphafuse.config import TrainConfig
from alphafuse.events import Event, Listener


def run_on_gloo(
    stage: str, function: Any, config: TrainConfig, arguments: dict[str, Any], listen: Listener, resumes: bool = False
) -> Any:
    """As `jobs.worker_group.run_workers`; events arrive when all is done. A single worker runs in this process."""
    if config.workers == 1:
        result, events = _call(function, arguments)
    else:
        (result, events), *_ = run_ranks(config.workers, _call, function, arguments)
    for event in events:
        listen(event)
    return result


def _call(function: Any, arguments: dict[str, Any]) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    result = function(communicator=Communicator(), device=torch.device("cpu"), listen=events.append, **arguments)
    return result, events
