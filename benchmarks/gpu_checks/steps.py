"""Checks of the training step: it computes what a CPU computes, waits for nothing, and launches few kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_checks.outcome import Skipped, on_device, wait_for
from benchmarks.gpu_checks.small_steps import CONFIGURATIONS, RATES, SmallTraining, small_config

TOLERANCE = 1e-2
"""Relative difference of losses: kernels round products to TF32, and the steps before have moved the weights."""
RANDOM = {"unisrec": 0.5, "rlmrec_gen": 0.5}
"""Tolerances of encoders that draw random numbers on the device."""
MOST_LAUNCHES = 120


def equals_the_cpu(device: torch.device) -> dict[str, Any]:
    """An epoch of every loss, encoder and backbone has the losses of a CPU in float32."""
    worst, worst_case, cases = 0.0, "", 0
    for name, configuration in CONFIGURATIONS.items():
        config = configuration()
        expected = SmallTraining(config, torch.device("cpu")).losses()
        found = SmallTraining(config, device).losses()
        difference = float(np.max(np.abs(found - expected) / np.abs(expected)))
        assert np.isfinite(found).all(), f"{name}: losses {found}"
        assert difference <= RANDOM.get(name, TOLERANCE), f"{name}: losses {found} instead of {expected}"
        cases += 1
        if name not in RANDOM and difference >= worst:
            worst, worst_case = difference, name
    return {"cases": cases, "largest relative difference": worst, "in": worst_case}


def waits_for_nothing(device: torch.device) -> dict[str, Any]:
    """A step of every loss, encoder and backbone reads no number of the device."""
    cases = 0
    for name, configuration in CONFIGURATIONS.items():
        training = SmallTraining(configuration(), device)
        plans = list(training.plans())
        training.step(plans[0], RATES)  # compiles kernels, and makes Adam's state
        with _refusing_to_wait(device):
            try:
                for plan in plans[1:]:
                    training.step(plan, RATES)
            except RuntimeError as error:
                raise AssertionError(f"{name} waits for the device: {error}") from error
        cases += 1
    return {"cases": cases}


def launches_few_kernels(device: torch.device) -> dict[str, Any]:
    """The profiler counts the kernels and copies of a default step."""
    if device.type != "cuda":
        raise Skipped("the profiler counts kernels on a GPU alone")
    training = SmallTraining(small_config(log_steps=1000), device)
    plans = list(training.plans())
    for plan in plans[:-1]:
        training.step(plan, RATES)
    wait_for(device)
    names = [event.name for event in on_device(lambda: training.step(plans[-1], RATES), device)]
    assert 0 < len(names) <= MOST_LAUNCHES, f"{len(names)} launches: {sorted(names)}"
    return {"launches": len(names), "limit": MOST_LAUNCHES}


@contextmanager
def _refusing_to_wait(device: torch.device) -> Iterator[None]:
    """Context in which waiting for the device is an error."""
    if device.type == "cuda":
        wait_for(device)
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
