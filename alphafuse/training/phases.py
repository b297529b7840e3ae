"""The phases of a training: the first and, where `train.finish` asks for it, one from the best weights on."""

from __future__ import annotations

from dataclasses import dataclass

from alphafuse.config import ScheduleConfig, TrainConfig
from alphafuse.data.sampling.batches import BatchOrder
from alphafuse.training.checkpoints.training_state import TrainingState
from alphafuse.training.schedule import LearningRates, rate_factor
from alphafuse.training.step import TrainingStep
from alphafuse.training.step_plan import StepPlanner


@dataclass(frozen=True)
class Phase:
    """One phase of a training.

    Attributes:
        config: settings of the phase.
        order: batches of the phase.
        planner: plans its optimizer steps.
        step: takes its optimizer steps.
    """

    config: TrainConfig
    order: BatchOrder
    planner: StepPlanner
    step: TrainingStep

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole phase, if nothing stops it earlier."""
        return self.config.max_epochs * self.order.steps_per_epoch

    def rates(self, step: int, state: TrainingState) -> LearningRates:
        """Learning rates of optimizer step `step` of the training."""
        factor = rate_factor(self.config.schedule, step - state.phase_step, self.steps)
        return LearningRates(self.config.learning_rate * factor, self.config.table_learning_rate * factor)

    def over(self, state: TrainingState) -> str | None:
        """The reason why the phase is over; None where it is not."""
        config = self.config
        if state.stale >= config.patience:
            return f"{config.monitor} did not improve in {config.patience} validations"
        if config.max_steps is not None and state.step >= config.max_steps:
            return f"max_steps ({config.max_steps}) reached"
        done = state.epoch - state.phase_epoch
        return f"max_epochs ({config.max_epochs}) reached" if done >= config.max_epochs else None


def phase_configs(config: TrainConfig) -> list[TrainConfig]:
    """Configuration of each phase: that of the training itself, then the one with the changes of `finish`."""
    finish = config.finish
    if finish is None:
        return [config]
    changes = {
        "positions": finish.positions,
        "batch_size": finish.batch_size,
        "learning_rate": finish.rate_factor * config.learning_rate,
        "table_learning_rate": finish.rate_factor * config.table_learning_rate,
        "max_epochs": finish.max_epochs,
        "patience": finish.patience,
        "schedule": ScheduleConfig(),
    }
    return [config, config.model_copy(update=changes)]
