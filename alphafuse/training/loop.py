"""The training loop: epochs, validate, keep the best, stop early, resume.

One instance runs on every rank; all ranks take the same branches, since what they branch on (steps, reduced
losses, metrics) is equal on all of them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.torch
import torch

from alphafuse.artifact import fingerprint
from alphafuse.collectives import Communicator
from alphafuse.config import Config
from alphafuse.data.batches import Batch, BatchOrder
from alphafuse.data.popularity import load_popularity, load_trained_items
from alphafuse.data.samples import Windowing
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.data.shuffle import SampleStream
from alphafuse.errors import DataError
from alphafuse.evaluation.evaluator import validation_metrics
from alphafuse.events import Event, Listener
from alphafuse.meter import Meter
from alphafuse.training.checkpoint import DENSE_FILE, Checkpoints, write_table_rows
from alphafuse.training.engine import MOMENTS, DenseEngine
from alphafuse.training.model import ScoringModel, build_objective, build_table
from alphafuse.training.negatives import needs_popularity
from alphafuse.training.reporter import StepReporter
from alphafuse.training.schedule import rate_factor
from alphafuse.training.step import TrainingStep
from alphafuse.workspace import Workspace

VALIDATION_REPORT_SECONDS = 30.0
"""How often a validation tells that it goes on: on a large catalog it may take longer than a run may be silent."""


@dataclass
class Progress:
    """Where a training stands; saved with every checkpoint.

    Attributes:
        step: optimizer steps taken.
        epoch, step_in_epoch: the next step's place in the data.
        loss_sum, loss_steps: of the epoch so far, for its mean loss.
        seconds: of the epoch so far.
        history: one entry per finished epoch.
        best: value, epoch and step of the best validation, or None before the first.
        stale: validations since the best.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    stale: int = 0


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
        communicator = communicator.metered(Meter(device))
        self._communicator = communicator
        self._device = device
        self._listen = listen
        train = config.train
        windowing = Windowing.of(train, config.model.history_length)
        samples = SampleStream(self._sequences, windowing, train.shuffle_users, config.seed)
        if not len(samples):
            raise DataError("there is nothing to train on: no user has two training interactions; check data.split")
        self._validated = self._choose_validation_targets()
        self.order = BatchOrder(samples, train.batch_size, train.accumulation)
        self._objective = build_objective(config, workspace, communicator).to(device)
        self.table = build_table(config, workspace, self._objective.encoder, communicator, device)
        self.engine = DenseEngine(self._objective, train, communicator.world_size)
        popularity = load_popularity(workspace) if needs_popularity(train.loss) else None
        trained = load_trained_items(workspace)
        self._step = TrainingStep(
            train, config.seed, self.table, self.engine, communicator, device, popularity, trained
        )
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
        train = self._config.train
        while (stopped := self._stopped()) is None:
            progress, started = self.progress, time.monotonic()
            steps = self.order.epoch(
                progress.epoch, progress.step_in_epoch, self._communicator.rank, self._communicator.world_size
            )
            for batches in self._communicator.meter.steps(steps):
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

    def training_step(self, batches: list[Batch]) -> torch.Tensor:
        """The next optimizer step over its micro-batches; returns this rank's share of its mean loss."""
        return self._step(batches, self.progress.step, self._rate_factor(self.progress.step))

    def _rate_factor(self, step: int) -> float:
        train = self._config.train
        return rate_factor(train.schedule, step, train.max_epochs * self.order.steps_per_epoch)

    def _end_epoch(self) -> None:
        """Validate if it is due, note the epoch in the history, keep the best weights, save."""
        progress, train = self.progress, self._config.train
        self._reduce_loss()
        epoch = progress.epoch + 1
        last = epoch == train.max_epochs or progress.step == train.max_steps
        metrics = self._validate() if last or epoch % train.validate_every == 0 else None
        progress.history.append(
            {
                "epoch": epoch,
                "step": progress.step,
                "loss": progress.loss_sum / max(1, progress.loss_steps),
                "learning_rate": train.learning_rate * self._rate_factor(progress.step - 1),
                "seconds": progress.seconds,
                "validation": metrics,
            }
        )
        told = {"split": "validation", "epoch": epoch, "loss": progress.history[-1]["loss"]}
        self._emit("metrics", {**told, **(metrics or {})})
        self._reported = (0.0, 0)
        progress.epoch, progress.step_in_epoch = epoch, 0
        progress.loss_sum, progress.loss_steps, progress.seconds = 0.0, 0, 0.0
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
            self._emit("validating", {"done": users, "total": total, "unit": "users"})

    def _stopped(self) -> str | None:
        """Why training is over, or None."""
        progress, train = self.progress, self._config.train
        if progress.stale >= train.patience:
            return f"{train.monitor} did not improve in {train.patience} validations"
        if train.max_steps is not None and progress.step >= train.max_steps:
            return f"max_steps ({train.max_steps}) reached"
        return f"max_epochs ({train.max_epochs}) reached" if progress.epoch >= train.max_epochs else None

    def _reduce_loss(self) -> None:
        """Add the loss of the steps since the last call to the epoch's, summed over the ranks."""
        progress = self.progress
        progress.loss_sum += float(self._communicator.all_reduce(self._epoch_loss))
        progress.loss_steps = progress.step_in_epoch
        self._epoch_loss.zero_()

    def _report(self) -> None:
        progress, train = self.progress, self._config.train
        if progress.step % train.log_steps:
            return
        self._reduce_loss()
        loss_sum, loss_steps = self._reported
        self._reported = (progress.loss_sum, progress.loss_steps)
        factor = self._rate_factor(progress.step - 1)
        values = {
            "done": progress.step,
            "total": train.max_steps or train.max_epochs * self.order.steps_per_epoch,
            "unit": "steps",
            "epoch": progress.epoch + 1,
            "loss": (progress.loss_sum - loss_sum) / (progress.loss_steps - loss_steps),
            "learning_rate": train.learning_rate * factor,
            "table_learning_rate": train.table_learning_rate * factor,
            "gradient_norm": self._step.gradient_norm,
            "table_gradient_norm": self._table_gradient_norm(),
            "samples_per_second": self._reporter.report(progress.step),
        }
        self._emit("progress", values)

    def _table_gradient_norm(self) -> float:
        """Of the last step, over all ranks. A collective."""
        norm = self._step.table_gradient_norm
        if self._config.train.max_grad_norm is not None:
            return norm
        square = torch.tensor(norm**2, dtype=torch.float64, device=self._device)
        return math.sqrt(float(self._communicator.all_reduce(square)))

    def _emit(self, kind: str, values: dict[str, Any]) -> None:
        self._told = time.monotonic()
        if self._communicator.rank == 0:
            self._listen(Event("train", kind, values))

    def _save(self) -> None:
        progress, started = self.progress, time.monotonic()
        self._checkpoints.save(progress.step, self.table, self.engine, dataclasses.asdict(progress))
        self._checkpoints.keep_only({progress.step, progress.best["step"] if progress.best else progress.step})
        if self._communicator.rank == 0:
            size = sum(file.bytes for file in self._checkpoints.at(progress.step).require().files)
            seconds = time.monotonic() - started
            self._emit("checkpoint", {"step": progress.step, "seconds": seconds, "bytes": size})

    def _resume(self) -> None:
        """Take up the newest checkpoint that is whole, with the best weights that it speaks of; without one, begin."""
        checkpoint, damaged = self._checkpoints.latest(_step_of_the_best)
        if damaged:
            where = f"step {checkpoint.details['step']}" if checkpoint else "the beginning"
            message = f"checkpoints are damaged ({', '.join(damaged)}); training continues from {where}"
            self._emit("warning", {"message": message})
        if checkpoint is not None:
            names = [entry.name for entry in dataclasses.fields(Progress)]
            self.progress = Progress(**{name: checkpoint.details[name] for name in names})
            self._checkpoints.load(self.progress.step, self.table, self.engine)
            self._reported = (self.progress.loss_sum, self.progress.loss_steps)

    def _write_model(self, details: dict[str, Any]) -> None:
        """Write the best weights: every rank its rows, rank 0 the dense weights and the manifest."""
        assert self.progress.best is not None  # the last epoch is always validated
        self._checkpoints.load(self.progress.best["step"], self.table, self.engine)
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
