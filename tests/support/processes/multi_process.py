"""Runs functions on the ranks of gloo groups. The processes of a world size are started once and reused."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

TIMEOUT_SECONDS = 240


def run_ranks(
    world_size: int, function: Callable[..., Any], *arguments: Any, prepare: Callable[[], Any] | None = None
) -> list[Any]:
    """Call `function(*arguments)` on every rank; returns the ranks' results in order of rank.

    `function` must be defined at the top level of a module, and so must `prepare`: it is called when the processes
    start, which are then not those of other calls.

    Raises:
        RuntimeError: a rank raised, and the message is its traceback; or a rank died. The ranks are started again
            afterwards, since the others may wait in a collective.
    """
    pipes = _ranks(world_size, prepare)
    for pipe in pipes:
        pipe.send((function, arguments))
    results: dict[Connection, Any] = {}
    while len(results) < world_size:
        ready = wait([pipe for pipe in pipes if pipe not in results], timeout=TIMEOUT_SECONDS)
        for pipe in ready:
            try:
                succeeded, results[pipe] = pipe.recv()
            except EOFError:
                succeeded, results[pipe] = False, "its process died"
            if not succeeded:
                stop_ranks()
                raise RuntimeError(f"rank {pipes.index(pipe)} failed:\n{results[pipe]}")
        if not ready:
            stop_ranks()
            raise RuntimeError(f"ranks hang: {[rank for rank, pipe in enumerate(pipes) if pipe not in results]}")
    return [results[pipe] for pipe in pipes]


_processes: list[Any] = []


@cache
def _ranks(world_size: int, prepare: Callable[[], Any] | None) -> list[Connection]:
    store = tempfile.mkdtemp() + "/store"
    context = multiprocessing.get_context("spawn")
    pipes = []
    for rank in range(world_size):
        ours, theirs = context.Pipe()
        arguments = (rank, world_size, store, theirs, sys.path, prepare)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        _processes.append(process)
        pipes.append(ours)
    return pipes


def stop_ranks() -> None:
    """End all rank processes; the next `run_ranks` starts new ones."""
    for process in _processes:
        process.kill()
    _processes.clear()
    _ranks.cache_clear()


atexit.register(stop_ranks)


def _serve(
    rank: int, world_size: int, store: str, pipe: Connection, path: list[str], prepare: Callable[[], Any] | None
) -> None:
    sys.path[:] = path
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=timedelta(seconds=120)
    )
    while True:
        function, arguments = pipe.recv()
        try:
            pipe.send((True, function(*arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
