"""The training loop: phases, epochs, validate, keep the best, stop early, resume.

One instance runs on every rank; all ranks take the same branches, since what they branch on (steps, reduced
losses, metrics) is equal on all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch

from alphafuse.config import Config, TrainConfig
from alphafuse.data.popularity import load_popularity, load_trained_items
from alphafuse.data.sampling.batches import BatchOrder
from alphafuse.data.sampling.item_mask import masked_steps
from alphafuse.data.sampling.lanes import ORDER
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.step_timer import StepTimer
from alphafuse.errors import DataError
from alphafuse.events import Listener
from alphafuse.items.table_building import build_table, initialise_table
from alphafuse.storage.filesystem.read_ahead import read_ahead
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import Checkpoints
from alphafuse.training.checkpoints.trained_model import write_trained
from alphafuse.training.checkpoints.training_state import TrainingState
from alphafuse.training.checkpoints.warm_start import is_warm, shortened, warm_start
from alphafuse.training.engine import DenseEngine
from alphafuse.training.negative_sampler import NegativeSampler, needs_popularity
from alphafuse.training.objectives.objective_building import build_objective
from alphafuse.training.phases import Phase, phase_configs
from alphafuse.training.reporter import TrainingReporter
from alphafuse.training.scoring_model import ScoringModel
from alphafuse.training.step import TrainingStep
from alphafuse.training.step_plan import StepPlan, StepPlanner
from alphafuse.training.validation import Validation
from alphafuse.training.weight_average import WeightAverage


class Trainer:
    """Trains one model on this rank's part of every batch.

    Args:
        inputs: everything that the trained model is made from; checkpoints of other inputs are refused.
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
        self.state = TrainingState()
        self._continues = is_warm(config, workspace)
        if self._continues:
            config = config.model_copy(update={"train": shortened(config)})
        self._config = config
        self._workspace = workspace
        self._inputs = inputs
        self._communicator = communicator = communicator.timed(StepTimer(device))
        sequences = SequenceStore(workspace)
        orders = [(phase, self._batch_order(phase, sequences)) for phase in phase_configs(config.train)]
        self._validation = Validation(config, sequences, communicator)
        self._objective = build_objective(config, workspace, communicator).to(device)
        # Weights are kept, and those of a test are loaded, in float32: a validation scores the same ones.
        apart = config.train.deepspeed.bf16 or config.train.averaging is not None
        self._validated = build_objective(config, workspace, communicator).to(device) if apart else self._objective
        encoder = self._objective.encoder
        self.table = build_table(config, workspace, encoder, communicator, device)
        self.engine = DenseEngine(self._objective, config.train, communicator.world_size)
        share = config.train.averaging
        self._average = None if share is None else WeightAverage(share, self.table, self.engine)
        popularity = load_popularity(workspace) if needs_popularity(config.train.loss) else None
        trained, aligns = load_trained_items(workspace), encoder.alignment_weight > 0
        planning = communicator.apart("planning")
        self._phases = []
        for phase, order in orders:
            sampler = NegativeSampler(phase, config.seed, self.table.num_items, planning, popularity, trained, aligns)
            planner = StepPlanner(phase, self.table, sampler, self._objective.draw, planning, device)
            step = TrainingStep(phase, config.seed, self.table, self.engine, communicator)
            self._phases.append(Phase(phase, order, planner, step))
        # A position in the data means nothing in another order.
        self._checkpoints = Checkpoints(workspace, {**inputs, "order_of_samples": ORDER}, communicator)
        self._epoch_loss = torch.zeros((), dtype=torch.float64, device=device)
        self._reporter = TrainingReporter(communicator, device, listen)

    def run(self) -> dict[str, Any]:
        """Train to the end, from the latest checkpoint if there is one, and write the best weights as `model`.

        Returns:
            The details of the `model` artefact: history, best, and why training stopped.
        """
        try:
            return self._train()
        finally:
            self._checkpoints.close()

    def _train(self) -> dict[str, Any]:
        """Implementation of `run`."""
        self._resume()
        while (stopped := self._stopped()) is None:
            if self._phase.over(self.state):
                self._load_best()
                self.state.begin_next_phase()
            self._train_epoch()
        self._load_best()
        details = {
            "history": self.state.history,
            "best": self.state.best,
            "stopped": stopped,
            "steps": self.state.step,
            "num_items": self.table.num_items,
            "world_size": self._communicator.world_size,
            "update": self.state.update,
        }
        weights, moments = self.engine.weights(), self.engine.moments()
        write_trained(self._workspace, self._inputs, details, self.table, weights, moments, self._communicator)
        return details

    def plans(self) -> Iterator[StepPlan]:
        """Yield the plans of the rest of the epoch, up to the last step; each is made while the step before it runs."""
        state, phase, communicator = self.state, self._phase, self._communicator
        steps = phase.order.epoch(state.epoch, state.step_in_epoch, communicator.rank, communicator.world_size)
        share, most = self._config.train.masking, self._config.train.max_steps
        if share is not None:
            steps = masked_steps(steps, self._config.seed, state.step, share)
        left = None if most is None else most - state.step
        return read_ahead(phase.planner.plans(itertools.islice(steps, left), state.step))

    def training_step(self, plan: StepPlan) -> torch.Tensor:
        """Take the next optimizer step; returns this rank's share of the mean loss."""
        loss = self._phase.step(plan, self._phase.rates(plan.number, self.state))
        steps = plan.number + 1 - self.state.phase_step
        if self._average and self._average.is_due(steps):
            self._average.update(steps, self.table, self.engine)
        return loss

    @property
    def _phase(self) -> Phase:
        return self._phases[self.state.phase]

    def _batch_order(self, phase: TrainConfig, sequences: SequenceStore) -> BatchOrder:
        windowing = Windowing.of(phase, self._config.model.history_length)
        samples = SampleStream(sequences, windowing, phase.shuffle_users, self._config.seed)
        if not len(samples):
            raise DataError("there is nothing to train on: no user has two training interactions; check data.split")
        return BatchOrder(samples, phase.batch_size, phase.accumulation)

    def _stopped(self) -> str | None:
        """The reason why training is over; None where it is not."""
        most = self._config.train.max_steps
        ends = self._phase is self._phases[-1] or (most is not None and self.state.step >= most)
        return self._phase.over(self.state) if ends else None

    def _train_epoch(self) -> None:
        """Train the rest of the epoch, and do what is due at its end."""
        state, train, started = self.state, self._config.train, time.monotonic()
        for plan in self._communicator.timer.steps(self.plans()):
            self._epoch_loss += self.training_step(plan)
            state.step += 1
            state.step_in_epoch += 1
            self._reporter.step(state.step, plan.samples)
            self._reporter.checkpoints(self._checkpoints.written())
            if state.step % train.log_steps == 0:
                self._reduce_loss()
                self._reporter.progress(state, self._phase)
            if state.step == train.max_steps:
                break
            if train.checkpoint_steps and state.step % train.checkpoint_steps == 0:
                state.seconds += time.monotonic() - started
                started = time.monotonic()
                self._reduce_loss()
                self._save()
        state.seconds += time.monotonic() - started
        self._end_epoch()

    def _end_epoch(self) -> None:
        """Validate if it is due, note the epoch in the history, keep the best weights, save."""
        state, train = self.state, self._phase.config
        self._reduce_loss()
        epoch = state.epoch + 1
        last = epoch - state.phase_epoch == train.max_epochs or state.step == train.max_steps
        metrics = self._validate() if last or epoch % train.validate_every == 0 else None
        state.history.append(
            {
                "epoch": epoch,
                "step": state.step,
                "loss": state.loss_sum / max(1, state.loss_steps),
                "learning_rate": self._phase.rates(state.step - 1, state).dense,
                "seconds": state.seconds,
                "validation": metrics,
            }
        )
        self._reporter.epoch(state.history[-1])
        state.end_epoch()
        if metrics is not None:
            state.note_validation(metrics[train.monitor])
            self._save()

    def _validate(self) -> dict[str, float]:
        """Validate the weights that are kept if they are the best: averages, where there are any."""
        average = self._average
        if average:
            average.update(self.state.step - self.state.phase_step, self.table, self.engine)
        if self._validated is not self._objective:
            self._validated.load_state_dict(average.dense if average else self.engine.weights())
        model = ScoringModel(self._validated, self.table, self._config.model.history_length)
        with average.in_table(self.table) if average else contextlib.nullcontext():
            return self._validation(model, self._reporter.validating)

    def _reduce_loss(self) -> None:
        """Add the loss of the steps since the last call to the epoch's, summed over the ranks."""
        state = self.state
        state.loss_sum += float(self._communicator.all_reduce(self._epoch_loss))
        state.loss_steps = state.step_in_epoch
        self._epoch_loss.zero_()

    def _save(self) -> None:
        """Begin to write a checkpoint, which replaces earlier ones but for the one of the best weights."""
        state = self.state
        needs = {state.best_step} if state.best else set()
        progress = dataclasses.asdict(state)
        self._checkpoints.save(state.step, self.table, self.engine, self._average, progress, needs)
        self._reporter.checkpoints(self._checkpoints.written())

    def _load_best(self) -> None:
        """Go on with the weights of the best validation, once every checkpoint is complete."""
        self._checkpoints.wait()
        if self.state.best_step != self.state.step:
            self._checkpoints.load(self.state.best_step, self.table, self.engine, self._average)
        self._reporter.checkpoints(self._checkpoints.written())
        if self._average:
            self._average.adopt(self.table, self.engine)
            self._average.restart(self.table, self.engine)

    def _resume(self) -> None:
        """Continue from the newest checkpoint that is whole; without one, from the beginning, which is the parent's
        model in an update."""
        checkpoint, damaged = self._checkpoints.restore(self.table, self.engine, self._average)
        if checkpoint is not None:
            self.state = TrainingState.of(checkpoint.details)
        elif damaged:
            initialise_table(self.table, self._config, self._workspace, self._objective.encoder, self._communicator)
            if self._average:
                self._average.restart(self.table, self.engine)
        if checkpoint is None and self._continues:
            self._begin_from_parent()
        self._reporter.resumed(self.state, damaged)

    def _begin_from_parent(self) -> None:
        """Carry the parent's model over and validate it: no later weights are kept unless they are better."""
        encoder, monitor = self._objective.encoder, self._config.train.monitor
        arguments = (self._config, self._workspace, encoder, self.table, self.engine, self._communicator)
        begun = warm_start(*arguments)
        if self._average:
            self._average.restart(self.table, self.engine)
        value = self._validate()[monitor]
        self.state.note_validation(value)
        self.state.update = {**begun.summary(), monitor: value}
        self._reporter.warm(self.state.update)
        self._save()
