"""Events of a training: every rank's steps, and the progress of the training as a whole."""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import psutil
import torch

from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.step_timer import ClosedStep
from alphafuse.events import (
    MEASURED,
    CheckpointWritten,
    EpochMetrics,
    Event,
    Listener,
    Metrics,
    StageWarning,
    StepMeans,
    StepTaken,
    TrainingProgress,
    ValidationProgress,
)
from alphafuse.training.checkpoints.checkpoint import Written
from alphafuse.training.checkpoints.training_state import TrainingState
from alphafuse.training.phases import Phase

VALIDATION_REPORT_SECONDS = 30.0
"""Longest silence of a validation: on a large catalog it may take longer than a run may be silent."""


class TrainingReporter:
    """Emits the steps of this rank, and on rank 0 the progress of the training, its validations and checkpoints."""

    def __init__(self, communicator: Communicator, device: torch.device, listen: Listener) -> None:
        self._communicator = communicator
        self._device = device
        self._listen = listen
        self._steps = StepReporter(communicator, device, listen)
        self._reported = (0.0, 0)  # sum and number of the epoch's losses, at the last report
        self._emitted = time.monotonic()

    def resumed(self, state: TrainingState, damaged: list[str]) -> None:
        """Note that training continues from `progress`; warn where newer checkpoints are damaged."""
        self._reported = (state.loss_sum, state.loss_steps)
        if damaged:
            where = f"step {state.step}" if state.step else "the beginning"
            message = f"checkpoints are damaged ({', '.join(damaged)}); training continues from {where}"
            self._emit(StageWarning("train", message))

    def warm(self, update: Mapping[str, Any]) -> None:
        """Report what an update has carried over from its parent's model."""
        numbers = {f"update_{name}": float(value) for name, value in update.items()}
        self._emit(Metrics("train", numbers=numbers))
        if not update["moments"]:
            message = (
                "the parent's model has no moments, since a version that kept none trained it: rows and weights are "
                "carried over, and Adam's moments begin at zero"
            )
            self._emit(StageWarning("train", message))

    def step(self, number: int, samples: int) -> None:
        """Report that the step `number` is over; `samples` is the number of this rank's samples."""
        self._steps.end_step(number, samples)

    def progress(self, state: TrainingState, phase: Phase) -> None:
        """Report means over the steps since the last report. A collective."""
        loss_sum, loss_steps = self._reported
        self._reported = (state.loss_sum, state.loss_steps)
        rates = phase.rates(state.step - 1, state)
        report = TrainingProgress(
            "train",
            done=state.step,
            total=phase.config.max_steps or state.phase_step + phase.steps,
            unit="steps",
            epoch=state.epoch + 1,
            loss=(state.loss_sum - loss_sum) / (state.loss_steps - loss_steps),
            learning_rate=rates.dense,
            table_learning_rate=rates.table,
            gradient_norm=float(phase.step.gradient_norm),
            table_gradient_norm=self._table_gradient_norm(phase),
            samples_per_second=self._steps.report(state.step),
        )
        self._emit(report)

    def epoch(self, entry: dict[str, Any]) -> None:
        """Report that an epoch is over; `entry` is its line in the history."""
        self._reported = (0.0, 0)
        self._steps.finish()
        numbers = entry["validation"] or {}
        event = EpochMetrics("train", split="validation", epoch=entry["epoch"], loss=entry["loss"], numbers=numbers)
        self._emit(event)

    def validating(self, users: int, total: int) -> None:
        """Report that a validation goes on, after `VALIDATION_REPORT_SECONDS` of silence."""
        if time.monotonic() - self._emitted > VALIDATION_REPORT_SECONDS:
            self._emit(ValidationProgress("train", users, total, "users"))

    def checkpoints(self, written: Iterable[Written]) -> None:
        """Report that checkpoints are committed."""
        for each in written:
            self._emit(CheckpointWritten("train", each.step, each.seconds, each.bytes, each.waited))

    def _table_gradient_norm(self, phase: Phase) -> float:
        """Norm of the table's gradient in the last step, over all ranks. A collective."""
        square = phase.step.table_gradient_square
        if phase.config.max_grad_norm is None:
            square = self._communicator.all_reduce(square.double())
        return math.sqrt(float(square))

    def _emit(self, event: Event) -> None:
        self._emitted = time.monotonic()
        if self._communicator.rank == 0:
            self._listen(event)


class StepReporter:
    """Emits `StepTaken` after each step of this rank, and `StepMeans` when asked.

    Args:
        communicator: its timer measures the steps.
        device: device whose memory is reported.
    """

    def __init__(self, communicator: Communicator, device: torch.device, listen: Listener) -> None:
        self._communicator = communicator
        self._device = device
        self._listen = listen
        self._process = psutil.Process()
        self._host = socket.gethostname()
        self._steps = self._samples = 0
        self._sums = dict.fromkeys(MEASURED, 0.0)
        self._closed: deque[tuple[int, int, ClosedStep]] = deque()

    def end_step(self, number: int, samples: int) -> None:
        """End the step `number`, with so many samples of this rank, and emit `StepTaken` for every step that the device
        has finished."""
        self._closed.append((number, samples, self._communicator.timer.close_step()))
        while self._closed and self._closed[0][2].over():
            self._emit_first()

    def finish(self) -> None:
        """Emit `StepTaken` for the steps that the device has still to finish."""
        while self._closed:
            self._emit_first()

    def _emit_first(self) -> None:
        number, samples, closed = self._closed.popleft()
        taken = closed.taken()
        measured = {name: taken.get(name, 0.0) for name in MEASURED}
        self._steps += 1
        self._samples += samples
        for name, value in measured.items():
            self._sums[name] += value
        self._listen(StepTaken("train", rank=self._communicator.rank, step=number, samples=samples, **measured))

    def report(self, number: int) -> float:
        """Emit the means over the steps since the last report, the last of which was `number`.

        Returns:
            Samples per second of all ranks.
        """
        self.finish()
        rate = self._samples / self._sums["seconds"]
        means = StepMeans(
            "train",
            rank=self._communicator.rank,
            step=number,
            world_size=self._communicator.world_size,
            steps=self._steps,
            samples_per_second=rate,
            memory_bytes=self._process.memory_info().rss,
            device_memory_bytes=self._device_memory(),
            host=self._host,
            **{name: total / self._steps for name, total in self._sums.items()},
        )
        self._listen(means)
        self._steps = self._samples = 0
        self._sums = dict.fromkeys(MEASURED, 0.0)
        return rate * self._communicator.world_size

    def _device_memory(self) -> int | None:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else None
