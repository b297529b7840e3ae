"""Loss of a backbone that scores items: encode the looked-up rows, run the backbone, score, sum the losses.

Plain torch but for losses over sharded items, whose collectives sit in `alphafuse.losses.log_partition`.
"""

from __future__ import annotations

import torch
from torch import nn

from alphafuse.config import LossConfig
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import Rows
from alphafuse.losses.cosines import unit_scores, unit_vectors
from alphafuse.losses.log_partition import NOTHING, sharded_log_partition
from alphafuse.losses.sampled import binary_cross_entropy, calibrated_weight, infonce
from alphafuse.training.objectives.alignment import alignment_loss
from alphafuse.training.objectives.dense_model import DenseModel
from alphafuse.training.objectives.step_input import ScoredBlock, ScoredRows, StepInput, exclude


class ScoringObjective(DenseModel):
    """Scores the targets against other items."""

    def __init__(
        self, encoder: ItemEncoder, backbone: nn.Module, loss: LossConfig, num_items: int, communicator: Communicator
    ) -> None:
        super().__init__(encoder, backbone)
        self._num_items = num_items
        self._loss = loss
        self._communicator = communicator

    def forward(self, rows: Rows, step: StepInput[None], scored: ScoredRows | None) -> torch.Tensor:
        """Sum of the losses over this rank's targets, a scalar.

        Args:
            rows: rows looked up for the step's items.
            scored: rows that the targets are scored against, for losses over sharded items.
        """
        item_vectors, others = self.gather(rows, step)
        # Scores are products with the states over the temperature: there are fewer states than scores.
        hidden = self._space(self.target_states(item_vectors, step)) / self._loss.temperature  # [targets, hidden_dim]
        if scored is None:
            loss = self._against_negatives(hidden, others, step)
        else:
            loss = self._against_rows(hidden, others[: len(hidden)], scored, step.log_weights)
        if self.encoder.alignment_weight:
            loss = loss + alignment_loss(self.encoder, rows, step, self._loss.temperature)
        return loss

    def _against_negatives(self, hidden: torch.Tensor, others: torch.Tensor, step: StepInput[None]) -> torch.Tensor:
        """The loss of states [targets, hidden_dim] with the vectors of targets and negatives, side by side."""
        sizes = [len(hidden), len(others) - len(hidden)]
        if len(step.negatives) == 1:  # shared by all targets
            targets, negatives = self._space(others).split(sizes)
            negative = exclude(hidden @ negatives.T, step.own, -torch.inf)  # [targets, count]
        else:
            targets, negatives = others.split(sizes)
            targets = self._space(targets)
            chosen = negatives.view(*step.negatives, negatives.shape[1])  # [targets, count, hidden_dim]
            cosine = self._loss.similarity == "cosine"
            negative = unit_scores(chosen, hidden) if cosine else (chosen @ hidden[:, :, None]).squeeze(2)
        positive = (hidden * targets).sum(dim=1)  # [targets]
        if isinstance(step.log_weights, torch.Tensor):
            negative = negative + step.log_weights
        elif step.log_weights:  # only differences of logits count
            positive = positive - step.log_weights
        return self._of_logits(positive, negative)

    def _of_logits(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """The loss of logits [targets] and [targets, count]."""
        if self._loss.name == "bce":
            return binary_cross_entropy(positive, negative)
        if self._loss.name == "gbce":
            weight = calibrated_weight(self._loss.calibration, negative.shape[1], self._num_items)
            return binary_cross_entropy(positive, negative, weight)
        return infonce(positive, negative)

    def _against_rows(
        self, hidden: torch.Tensor, targets: torch.Tensor, scored: ScoredRows, log_weights: torch.Tensor | float
    ) -> torch.Tensor:
        """Cross entropy of states with the scores of sharded items. A target counts once, by the vector that was looked
        up: an encoder with dropout or noise draws again for the items of the blocks."""

        def score(everyone: torch.Tensor, block: ScoredBlock) -> torch.Tensor:
            vectors = self._space(self.encoder(block.rows.features, block.rows.trainable))
            return exclude(everyone @ vectors.T, block.own, NOTHING)  # [targets of all ranks, rows of the block]

        positive = (hidden * self._space(targets)).sum(dim=1)  # [targets]
        others = sharded_log_partition(hidden, scored.blocks, score, scored.targets, self._communicator)
        return (torch.logaddexp(positive, others + log_weights) - positive).sum()

    def _space(self, vectors: torch.Tensor) -> torch.Tensor:
        """Scale vectors for the similarity: to unit length for the cosine."""
        return unit_vectors(vectors) if self._loss.similarity == "cosine" else vectors
