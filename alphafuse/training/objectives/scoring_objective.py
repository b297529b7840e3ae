"""Loss of a backbone that scores items: encode the looked-up rows, run the backbone, score, sum the losses.

Plain torch but for losses over sharded items, whose collectives sit in `alphafuse.losses.log_partition`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alphafuse.config import LossConfig
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import Rows
from alphafuse.losses.log_partition import NOTHING, sharded_log_partition
from alphafuse.losses.sampled import binary_cross_entropy, calibrated_weight, infonce
from alphafuse.training.objectives.alignment import alignment_loss
from alphafuse.training.objectives.dense_model import DenseModel
from alphafuse.training.objectives.step_input import ScoredBlock, ScoredRows, StepInput, exclude

SHORTEST = 1e-12
"""Vectors are divided by no length below this, as torch.nn.functional.normalize does."""


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
        num_targets = len(step.predicted.places)
        per_target = len(step.negatives) == 2
        # Vectors of the targets and, where all targets share them, of the negatives, in the space of the similarity.
        in_space = self._space(others[:num_targets] if per_target else others)
        hidden = self._space(self.target_states(item_vectors, step))  # [targets, hidden_dim]
        positive = (hidden * in_space[:num_targets]).sum(dim=1) / self._loss.temperature  # [targets]
        aligned = alignment_loss(self.encoder, rows, step, self._loss.temperature)
        if scored is not None:
            return self._against_rows(hidden, positive, scored, step.log_weights) + aligned
        if per_target:
            chosen = others[num_targets:].view(*step.negatives, others.shape[1])  # [targets, count, hidden_dim]
            negative = (chosen @ hidden[:, :, None]).squeeze(2)
            if self._loss.similarity == "cosine":  # dividing the products is cheaper than the vectors
                negative = negative / torch.linalg.vector_norm(chosen, dim=2).clamp(min=SHORTEST)
        else:
            negative = exclude(hidden @ in_space[num_targets:].T, step.own, -torch.inf)  # [targets, count]
        return self._against_negatives(positive, negative / self._loss.temperature + step.log_weights) + aligned

    def _against_negatives(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """The loss of logits [targets] and [targets, count]."""
        if self._loss.name == "bce":
            return binary_cross_entropy(positive, negative)
        if self._loss.name == "gbce":
            weight = calibrated_weight(self._loss.calibration, negative.shape[1], self._num_items)
            return binary_cross_entropy(positive, negative, weight)
        return infonce(positive, negative)

    def _against_rows(
        self, hidden: torch.Tensor, positive: torch.Tensor, scored: ScoredRows, log_weights: torch.Tensor | float
    ) -> torch.Tensor:
        """Cross entropy with the scores of sharded items. A target counts once, by the vector that was looked up: an
        encoder with dropout or noise draws again for the items of the blocks."""

        def score(everyone: torch.Tensor, block: ScoredBlock) -> torch.Tensor:
            vectors = self._space(self.encoder(block.rows.features, block.rows.trainable))
            logits = everyone @ (vectors.T / self._loss.temperature)  # [targets of all ranks, rows of the block]
            return exclude(logits, block.own, NOTHING)

        others = sharded_log_partition(hidden, scored.blocks, score, scored.targets, self._communicator)
        return (torch.logaddexp(positive, others + log_weights) - positive).sum()

    def _space(self, vectors: torch.Tensor) -> torch.Tensor:
        """Scale vectors for the similarity: to unit length for the cosine."""
        return functional.normalize(vectors, dim=-1) if self._loss.similarity == "cosine" else vectors
