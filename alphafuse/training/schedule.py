"""The learning rates as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alphafuse.config import ScheduleConfig


@dataclass(frozen=True)
class LearningRates:
    """Learning rates of one step.

    Attributes:
        dense: learning rate of backbone and encoder.
        table: learning rate of the item table's rows.
    """

    dense: float
    table: float


def rate_factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Factor on the learning rate of step `step` (from 0): rising over the warm-up, then as `config.kind` says.

    Linear and cosine reach zero at `total_steps`.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.kind == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    return 1.0 - done if config.kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
