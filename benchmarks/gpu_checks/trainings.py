"""Checks of whole trainings with DeepSpeed: a resume repeats the undisturbed run, and every precision learns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from alphafuse.distributed.communicator import Communicator
from alphafuse.events import CheckpointWritten, Event, ignore
from alphafuse.storage.workspace import Workspace
from benchmarks.gpu_checks.outcome import require
from benchmarks.gpu_checks.small_steps import small_config

TOLERANCE = 0.1
"""Relative difference of the last losses of bfloat16 and float32."""


class _StopError(Exception):
    pass


def resume_repeats(device: torch.device) -> dict[str, Any]:
    """A training that ends at its first checkpoint, and goes on, equals one without a break to the last bit."""
    require("deepspeed")
    from alphafuse.training.loop import Trainer

    def stop(event: Event) -> None:
        if isinstance(event, CheckpointWritten):
            raise _StopError

    results = []
    with _one_rank(device):
        for interrupted in (False, True):
            config = small_config(max_epochs=3)
            arguments = (config, Workspace(config.workspace), {"check": "resume"}, Communicator(device), device)
            if interrupted:
                try:
                    Trainer(*arguments, stop).run()
                except _StopError:
                    pass
                else:
                    raise AssertionError("no checkpoint was written")
            trainer = Trainer(*arguments, ignore)
            history = [entry["loss"] for entry in trainer.run()["history"]]
            results.append((history, trainer.table.trainable.cpu(), trainer.engine.state()))
    (history, rows, dense), (again, same_rows, same_dense) = results
    assert again == history, f"losses {again} instead of {history}"
    assert torch.equal(rows, same_rows)
    assert all(torch.equal(values, same_dense[name]) for name, values in dense.items())
    return {"epochs": len(history)}


def precisions_and_zero_stages(device: torch.device) -> dict[str, Any]:
    """ZeRO 0, 1 and 2 in float32 and 1 and 2 in bfloat16 train to about the same loss."""
    require("deepspeed")
    from alphafuse.training.loop import Trainer

    losses: dict[str, Any] = {}
    with _one_rank(device):
        for stage, bf16 in ((0, False), (1, False), (2, False), (1, True), (2, True)):
            settings = {"zero_stage": stage, "bf16": bf16}
            config = small_config(max_epochs=3, max_grad_norm=1.0, deepspeed=settings)
            trainer = Trainer(
                config, Workspace(config.workspace), {"check": str(settings)}, Communicator(device), device, ignore
            )
            loss = trainer.run()["history"][-1]["loss"]
            losses[f"loss, ZeRO {stage}, {'bfloat16' if bf16 else 'float32'}"] = loss
    values = np.array(list(losses.values()))
    assert np.isfinite(values).all(), str(losses)
    assert (np.abs(values / values[0] - 1) <= TOLERANCE).all(), str(losses)
    return losses


@contextmanager
def _one_rank(device: torch.device) -> Iterator[None]:
    """Context in which this process is a group of one rank, which DeepSpeed asks for."""
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it
    store = tempfile.mkdtemp() + "/store"
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
