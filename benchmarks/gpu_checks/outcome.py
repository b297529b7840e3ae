"""Runs one check of `benchmarks.gpu` and says how it went."""

from __future__ import annotations

import importlib.util
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Check = Callable[[torch.device], dict[str, Any]]
"""Takes the device; returns figures by name. Raises where something does not hold: AssertionError or another error."""
OWN = ("alphafuse", "benchmarks", "jobs", "monitoring", "support")
"""Packages of the checkout: they are there, and a module that they lack is an error."""


class Skipped(Exception):
    """A check that cannot be made here; the message is the reason."""


@dataclass(frozen=True)
class Outcome:
    """How a check went.

    Attributes:
        result: "skipped" is not "passed".
        reason: why a check was skipped, or did not pass.
    """

    result: Literal["passed", "failed", "skipped"]
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def run_check(check: Check, device: torch.device) -> Outcome:
    """Make a check on a device. A package that is not installed skips it."""
    start = time.monotonic()
    try:
        figures = check(device)
    except Skipped as skipped:
        return Outcome("skipped", time.monotonic() - start, reason=str(skipped))
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in OWN:
            return Outcome("skipped", time.monotonic() - start, reason=f"{package} is not installed")
        return Outcome("failed", time.monotonic() - start, reason=traceback.format_exc())
    except Exception:
        return Outcome("failed", time.monotonic() - start, reason=traceback.format_exc())
    return Outcome("passed", time.monotonic() - start, figures)


def require(*packages: str) -> None:
    """Skip the check unless the packages are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise Skipped(f"{package} is not installed")


def wait_for(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Mean time of `work` over some rounds, after one that does not count."""
    work()
    wait_for(device)
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    wait_for(device)
    return (time.perf_counter() - start) / rounds


def on_device(work: Callable[[], Any], device: torch.device) -> list[Any]:
    """Kernels and copies of the profiler that a GPU carries out during `work`."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        wait_for(device)
    events = (event for event in profile.events() if event.device_type.name == "CUDA")
    return [event for event in events if not getattr(event, "is_user_annotation", False)]
