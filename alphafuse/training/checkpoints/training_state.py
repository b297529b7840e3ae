"""TrainingState of a training: the part of a checkpoint beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class TrainingState:
    """Position of a training between two steps; saved with every checkpoint.

    Attributes:
        step: number of optimizer steps taken.
        epoch, step_in_epoch: the next step's place in the data.
        phase: number of the present phase, from 0.
        phase_step, phase_epoch: values of `step` and `epoch` when the phase began.
        loss_sum, loss_steps: sum and number of the losses of the epoch so far.
        seconds: time of the epoch so far.
        history: one entry per finished epoch.
        best: value, epoch and step of the best validation, or None before the first.
        stale: number of validations since the best, or since the phase began.
        update: what an update has carried over from its parent, and the monitored metric before the first step; None
            for a training from scratch.
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
    update: dict[str, Any] | None = None

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> TrainingState:
        """The state among the details of a checkpoint."""
        return cls(**{entry.name: details[entry.name] for entry in fields(cls) if entry.name in details})

    @property
    def best_step(self) -> int:
        """Step of the best validation. There is one at the end of every phase: its last epoch is always validated."""
        assert self.best is not None
        step: int = self.best["step"]
        return step

    def note_validation(self, value: float) -> None:
        """Note the validation of the last epoch; `value` is that of the monitored metric."""
        if self.best is None or value > self.best["value"]:
            self.best, self.stale = {"value": value, "epoch": self.epoch, "step": self.step}, 0
        else:
            self.stale += 1

    def end_epoch(self) -> None:
        """Set everything to the beginning of the next epoch."""
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.loss_sum, self.loss_steps, self.seconds = 0.0, 0, 0.0

    def begin_next_phase(self) -> None:
        """Set everything to the beginning of the next phase, with the weights of the best validation."""
        self.phase, self.phase_step, self.phase_epoch = self.phase + 1, self.step, self.epoch
        self.stale = 0
