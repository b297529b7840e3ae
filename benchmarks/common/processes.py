"""Functions on the ranks of a gloo group, and the memory of a process."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from alphafuse.config.sections.resources import RankResources
from jobs.execution.rank_group import TUNING, worker_environment


def run_ranks(
    world_size: int, function: Callable[..., Any], *arguments: Any, threads: int = 1, tuned: bool = True
) -> list[Any]:
    """Call `function(*arguments)` on every rank of a new group; returns the ranks' results in order of rank.

    Args:
        tuned: run in the environment of training workers; False: in that which a user finds, but for the threads.
    """
    variables = worker_environment(RankResources(cpus=threads))
    for name, value in variables.items():
        if tuned or name not in TUNING:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world_size,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="spawn",
        max_restarts=0,
    )
    results = elastic_launch(config, _on_rank)(function, arguments, threads)
    return [results[rank] for rank in range(world_size)]


def _on_rank(function: Callable[..., Any], arguments: tuple[Any, ...], threads: int) -> Any:
    torch.set_num_threads(threads)
    dist.init_process_group("gloo")
    try:
        return function(*arguments)
    finally:
        dist.destroy_process_group()


def reset_peak_memory() -> None:
    """Begin a new peak of this process at its present resident size."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> float:
    """Largest resident size of this process since the last reset (Linux: VmHWM)."""
    return _status("VmHWM")


def memory_mib() -> float:
    """Present resident size of this process."""
    return _status("VmRSS")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}: peak memory is measured on Linux only")
