"""The training loop: phases, epochs, validate, keep the best, stop early, resume.

One instance runs on every rank; all ranks take the same branches, since what they branch on (steps, reduced
losses, metrics) is equal on all of them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import safetensors.torch
import torch

from alphafuse.config import Config, TrainConfig
from alphafuse.data.popularity import load_popularity, load_trained_items
from alphafuse.data.sampling.batches import Batch, BatchOrder
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.step_timer import StepTimer
from alphafuse.errors import DataError
from alphafuse.evaluation.evaluator import validation_metrics
from alphafuse.events import (
    CheckpointWritten,
    EpochMetrics,
    Event,
    Listener,
    StageWarning,
    TrainingProgress,
    ValidationProgress,
)
from alphafuse.storage.artifact import fingerprint
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoint import DENSE_FILE, Checkpoints, write_table_rows
from alphafuse.training.engine import MOMENTS, DenseEngine
from alphafuse.training.model import ScoringModel, build_objective, build_table
from alphafuse.training.negative_sampler import needs_popularity
from alphafuse.training.phases import Phase, phase_configs
from alphafuse.training.progress import Progress
from alphafuse.training.reporter import StepReporter
from alphafuse.training.step import TrainingStep

VALIDATION_REPORT_SECONDS = 30.0
"""How often a validation tells that it goes on: on a large catalog it may take longer than a run may be silent."""


class Trainer:
    """Trains one model on this rank's part of every batch.

    Args:
        inputs: what the training is made from; names its checkpoints' fingerprint.
    """

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        inputs: dict[str, Any],
        communicator: Communicator,
        device: torch.device,
        listen: Listener,
    ) -> None:
        self.progress = Progress()
        self._config = config
        self._workspace = workspace
        self._sequences = SequenceStore(workspace)
        self._inputs = inputs
        communicator = communicator.timed(StepTimer(device))
        self._communicator = communicator
        self._device = device
        self._listen = listen
        orders = [(phase, self._batch_order(phase)) for phase in phase_configs(config.train)]
        self._validated = self._choose_validation_targets()
        self._objective = build_objective(config, workspace, communicator).to(device)
        self.table = build_table(config, workspace, self._objective.encoder, communicator, device)
        self.engine = DenseEngine(self._objective, config.train, communicator.world_size)
        popularity = load_popularity(workspace) if needs_popularity(config.train.loss) else None
        trained = load_trained_items(workspace)
        aligns = self._objective.encoder.alignment_weight > 0
        given = (config.seed, self.table, self.engine, communicator, device, popularity, trained, aligns)
        self._phases = [Phase(phase, order, TrainingStep(phase, *given)) for phase, order in orders]
        self._checkpoints = Checkpoints(workspace, inputs, communicator)
        self._epoch_loss = torch.zeros((), dtype=torch.float64, device=device)
        self._reporter = StepReporter(communicator, device, listen)
        self._reported = (0.0, 0)
        self._told = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Train to the end, from the latest checkpoint if there is one, and write the best weights as `model`.

        Returns:
            The details of the `model` artefact: history, best, and why training stopped.
        """
        self._resume()
        while (stopped := self._stopped()) is None:
            if self._phase.over(self.progress):
                self._checkpoints.load(self._best["step"], self.table, self.engine)
                self.progress.begin_next_phase()
            self._train_epoch()
        details = {
            "history": self.progress.history,
            "best": self.progress.best,
            "stopped": stopped,
            "steps": self.progress.step,
            "num_items": self.table.num_items,
            "world_size": self._communicator.world_size,
        }
        self._write_model(details)
        return details

    @property
    def order(self) -> BatchOrder:
        """The batches of the present phase."""
        return self._phase.order

    def training_step(self, batches: list[Batch]) -> torch.Tensor:
        """The next optimizer step over its micro-batches; returns this rank's share of its mean loss."""
        progress = self.progress
        return self._phase.step(batches, progress.step, self._phase.rate_factor(progress.step, progress))

    @property
    def _phase(self) -> Phase:
        return self._phases[self.progress.phase]

    @property
    def _best(self) -> dict[str, Any]:
        """Of the validations so far. There is one at the end of every phase: its last epoch is always validated."""
        assert self.progress.best is not None
        return self.progress.best

    def _batch_order(self, phase: TrainConfig) -> BatchOrder:
        windowing = Windowing.of(phase, self._config.model.history_length)
        samples = SampleStream(self._sequences, windowing, phase.shuffle_users, self._config.seed)
        if not len(samples):
            raise DataError("there is nothing to train on: no user has two training interactions; check data.split")
        return BatchOrder(samples, phase.batch_size, phase.accumulation)

    def _train_epoch(self) -> None:
        """The rest of the epoch, and what is due at its end."""
        progress, train, started = self.progress, self._config.train, time.monotonic()
        steps = self.order.epoch(
            progress.epoch, progress.step_in_epoch, self._communicator.rank, self._communicator.world_size
        )
        for batches in self._communicator.timer.steps(steps):
            self._epoch_loss += self.training_step(batches)
            progress.step += 1
            progress.step_in_epoch += 1
            self._reporter.end_step(progress.step, batches)
            self._report()
            if progress.step == train.max_steps:
                break
            if train.checkpoint_steps and progress.step % train.checkpoint_steps == 0:
                progress.seconds += time.monotonic() - started
                started = time.monotonic()
                self._reduce_loss()
                self._save()
        progress.seconds += time.monotonic() - started
        self._end_epoch()

    def _end_epoch(self) -> None:
        """Validate if it is due, note the epoch in the history, keep the best weights, save."""
        progress, train = self.progress, self._phase.config
        self._reduce_loss()
        epoch = progress.epoch + 1
        last = epoch - progress.phase_epoch == train.max_epochs or progress.step == train.max_steps
        metrics = self._validate() if last or epoch % train.validate_every == 0 else None
        rate = train.learning_rate * self._phase.rate_factor(progress.step - 1, progress)
        progress.history.append(
            {
                "epoch": epoch,
                "step": progress.step,
                "loss": progress.loss_sum / max(1, progress.loss_steps),
                "learning_rate": rate,
                "seconds": progress.seconds,
                "validation": metrics,
            }
        )
        loss = progress.history[-1]["loss"]
        self._emit(EpochMetrics("train", split="validation", epoch=epoch, loss=loss, numbers=metrics or {}))
        self._reported = (0.0, 0)
        progress.end_epoch()
        if metrics is not None:
            value = metrics[train.monitor]
            if progress.best is None or value > progress.best["value"]:
                progress.best = {"value": value, "epoch": epoch, "step": progress.step}
                progress.stale = 0
            else:
                progress.stale += 1
            self._save()

    def _choose_validation_targets(self) -> np.ndarray | None:
        """The targets that every validation is about, by their place among all; None: all."""
        total, wanted = self._sequences.num_validation_targets(), self._config.train.validation_targets
        if not total:
            raise DataError("there is nothing to choose the best weights by: no validation targets; check data.split")
        if wanted is None or wanted >= total:
            return None
        return np.sort(np.random.default_rng(self._config.seed).choice(total, wanted, replace=False))

    def _validate(self) -> dict[str, float]:
        return validation_metrics(
            ScoringModel(self._objective, self.table, self._config.model.history_length),
            self._sequences,
            "validation",
            self._config.evaluate,
            self._communicator,
            self._config.similarity,
            self._validated,
            self._tell_that_it_validates,
        )

    def _tell_that_it_validates(self, users: int, total: int) -> None:
        if time.monotonic() - self._told > VALIDATION_REPORT_SECONDS:
            self._emit(ValidationProgress("train", users, total, "users"))

    def _stopped(self) -> str | None:
        """Why training is over, or None."""
        most = self._config.train.max_steps
        ends = self._phase is self._phases[-1] or (most is not None and self.progress.step >= most)
        return self._phase.over(self.progress) if ends else None

    def _reduce_loss(self) -> None:
        """Add the loss of the steps since the last call to the epoch's, summed over the ranks."""
        progress = self.progress
        progress.loss_sum += float(self._communicator.all_reduce(self._epoch_loss))
        progress.loss_steps = progress.step_in_epoch
        self._epoch_loss.zero_()

    def _report(self) -> None:
        progress, train = self.progress, self._phase.config
        if progress.step % train.log_steps:
            return
        self._reduce_loss()
        loss_sum, loss_steps = self._reported
        self._reported = (progress.loss_sum, progress.loss_steps)
        factor = self._phase.rate_factor(progress.step - 1, progress)
        most = progress.phase_step + train.max_epochs * self.order.steps_per_epoch
        report = TrainingProgress(
            "train",
            done=progress.step,
            total=train.max_steps or most,
            unit="steps",
            epoch=progress.epoch + 1,
            loss=(progress.loss_sum - loss_sum) / (progress.loss_steps - loss_steps),
            learning_rate=train.learning_rate * factor,
            table_learning_rate=train.table_learning_rate * factor,
            gradient_norm=self._phase.step.gradient_norm,
            table_gradient_norm=self._table_gradient_norm(),
            samples_per_second=self._reporter.report(progress.step),
        )
        self._emit(report)

    def _table_gradient_norm(self) -> float:
        """Of the last step, over all ranks. A collective."""
        norm = self._phase.step.table_gradient_norm
        if self._config.train.max_grad_norm is not None:
            return norm
        square = torch.tensor(norm**2, dtype=torch.float64, device=self._device)
        return math.sqrt(float(self._communicator.all_reduce(square)))

    def _emit(self, event: Event) -> None:
        self._told = time.monotonic()
        if self._communicator.rank == 0:
            self._listen(event)

    def _save(self) -> None:
        progress, started = self.progress, time.monotonic()
        self._checkpoints.save(progress.step, self.table, self.engine, dataclasses.asdict(progress))
        self._checkpoints.keep_only({progress.step, progress.best["step"] if progress.best else progress.step})
        if self._communicator.rank == 0:
            size = sum(file.bytes for file in self._checkpoints.at(progress.step).require().files)
            seconds = time.monotonic() - started
            self._emit(CheckpointWritten("train", progress.step, seconds, size))

    def _resume(self) -> None:
        """Take up the newest checkpoint that is whole, with the best weights that it speaks of; without one, begin."""
        checkpoint, damaged = self._checkpoints.latest(_step_of_the_best)
        if damaged:
            where = f"step {checkpoint.details['step']}" if checkpoint else "the beginning"
            message = f"checkpoints are damaged ({', '.join(damaged)}); training continues from {where}"
            self._emit(StageWarning("train", message))
        if checkpoint is not None:
            names = [entry.name for entry in dataclasses.fields(Progress)]
            self.progress = Progress(**{name: checkpoint.details[name] for name in names})
            self._checkpoints.load(self.progress.step, self.table, self.engine)
            self._reported = (self.progress.loss_sum, self.progress.loss_steps)

    def _write_model(self, details: dict[str, Any]) -> None:
        """Write the best weights: every rank its rows, rank 0 the dense weights and the manifest."""
        self._checkpoints.load(self._best["step"], self.table, self.engine)
        artifact, wanted = self._workspace.artifact("model"), fingerprint(self._inputs)
        if self._communicator.rank == 0:
            artifact.clear()
        self._communicator.barrier()
        write_table_rows(artifact, wanted, self.table.first_row, {"rows": self.table.trainable})
        dense = {
            name: value
            for name, value in self.engine.state().items()
            if name != "adam_steps" and not name.endswith(tuple(f".{moment}" for moment in MOMENTS))
        }
        if self._communicator.rank == 0:
            artifact.write_file(DENSE_FILE, safetensors.torch.save(dense), wanted)
        self._communicator.barrier()
        if self._communicator.rank == 0:
            artifact.commit(self._inputs, details, rows=self.table.num_items)
        self._communicator.barrier()


def _step_of_the_best(details: dict[str, Any]) -> list[int]:
    """The checkpoint that the one with these details needs beside itself, if any."""
    return [details["best"]["step"]] if details["best"] else []
