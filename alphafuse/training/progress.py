"""Where a training stands: what a checkpoint says beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Saved with every checkpoint.

    Attributes:
        step: optimizer steps taken.
        epoch, step_in_epoch: the next step's place in the data.
        phase: which of the training's phases it is in, from 0 on.
        phase_step, phase_epoch: step and epoch that the phase began with.
        loss_sum, loss_steps: of the epoch so far, for its mean loss.
        seconds: of the epoch so far.
        history: one entry per finished epoch.
        best: value, epoch and step of the best validation, or None before the first.
        stale: validations since the best, or since the phase began.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    phase: int = 0
    phase_step: int = 0
    phase_epoch: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    stale: int = 0

    def end_epoch(self) -> None:
        """Set everything to the beginning of the next epoch."""
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.loss_sum, self.loss_steps, self.seconds = 0.0, 0, 0.0

    def begin_next_phase(self) -> None:
        """Set everything to the beginning of the next phase, with the weights of the best validation."""
        self.phase, self.phase_step, self.phase_epoch = self.phase + 1, self.step, self.epoch
        self.stale = 0
