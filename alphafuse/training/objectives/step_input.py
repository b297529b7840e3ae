"""Input of the dense part of a model in one training step, besides the rows that it looked up."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alphafuse.items.item_table import Rows


@dataclass(frozen=True)
class StepInput:
    """Item indices of one micro-batch of one rank, and its place in training.

    Attributes:
        histories, targets: int64 [samples, length], −1 where there is none.
        negatives: int64 [count], for all targets, or [targets, count] (for the positions that have a target). Where
            targets are scored against `ScoredRows`, or against nothing, they are those of the alignment alone, and
            empty for methods that align nothing.
        log_weights: added to the logits of the negatives: a number or [count].
        number: number of the optimizer step.
        first_sample: position of the first sample in the step's global batch.
    """

    histories: torch.Tensor
    targets: torch.Tensor
    negatives: torch.Tensor
    log_weights: torch.Tensor | float
    number: int
    first_sample: int

    def items(self) -> torch.Tensor:
        """All item indices that the step needs, flat: the argument of the one lookup."""
        return torch.cat([self.histories.flatten(), self.targets.flatten(), self.negatives.flatten()])

    def split(self, looked_up: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Split [items, …], in the order of `items`, into histories, targets and negatives."""
        return looked_up.split([self.histories.numel(), self.targets.numel(), self.negatives.numel()])


@dataclass(frozen=True)
class ScoredRows:
    """Rows of this rank that the targets of all ranks are scored against.

    Attributes:
        blocks: the rows, in blocks of bounded size.
        everyones_targets: int64 [targets of all ranks], as row numbers of this rank; a target is not its own negative.
    """

    blocks: list[Rows]
    everyones_targets: torch.Tensor
