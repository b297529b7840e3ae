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
from alphafuse.kernels.device import runs_kernels
from alphafuse.kernels.negative_sums import OwnNegatives, exclude, log_partition, softplus_sums
from alphafuse.losses.cosines import unit_scores, unit_vectors
from alphafuse.losses.log_partition import sharded_log_partition
from alphafuse.losses.sampled import (
    binary_cross_entropy,
    binary_cross_entropy_of_sums,
    calibrated_weight,
    infonce,
    infonce_of_partition,
)
from alphafuse.training.objectives.alignment import alignment_loss
from alphafuse.training.objectives.dense_model import DenseModel
from alphafuse.training.objectives.step_input import ScoredBlock, ScoredRows, StepInput


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
            assert rows.plan is not None
            loss = self._against_negatives(hidden, others, rows.plan.gathering.places, step)
        else:
            loss = self._against_rows(hidden, others[: len(hidden)], scored, step.log_weights)
        if self.encoder.alignment_weight:
            loss = loss + alignment_loss(self.encoder, rows, step, self._loss.temperature)
        return loss

    def _against_negatives(
        self, hidden: torch.Tensor, others: torch.Tensor, places: torch.Tensor, step: StepInput[None]
    ) -> torch.Tensor:
        """The loss of states [targets, hidden_dim] with the vectors of targets and negatives, side by side.

        Args:
            places: int64 [items], the distinct row of each item that was looked up.
        """
        sizes = [len(hidden), len(others) - len(hidden)]
        if len(step.negatives) == 1:  # shared by all targets
            targets, negatives = self._space(others).split(sizes)
            if runs_kernels(hidden.device):
                return self._against_shared(hidden, targets, negatives, places, step)
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

    def _against_shared(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        negatives: torch.Tensor,
        places: torch.Tensor,
        step: StepInput[None],
    ) -> torch.Tensor:
        """The loss with negatives [count, hidden_dim] that all targets share, from sums over tiles of their scores."""
        own = OwnNegatives(step.own, *step.split(places)[1:])
        positive = (hidden * targets).sum(dim=1)  # [targets]
        if self._loss.name in ("bce", "gbce"):
            return binary_cross_entropy_of_sums(
                positive, *softplus_sums(hidden, negatives, own), self._positive_weight(len(negatives))
            )
        if isinstance(step.log_weights, torch.Tensor):
            return infonce_of_partition(positive, log_partition(hidden, negatives, own, step.log_weights))
        return infonce_of_partition(positive, log_partition(hidden, negatives, own) + step.log_weights)

    def _of_logits(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """The loss of logits [targets] and [targets, count]."""
        if self._loss.name in ("bce", "gbce"):
            return binary_cross_entropy(positive, negative, self._positive_weight(negative.shape[1]))
        return infonce(positive, negative)

    def _positive_weight(self, num_negatives: int) -> float | None:
        """Weight of the positive in a binary cross entropy; see `binary_cross_entropy`."""
        if self._loss.name == "bce":
            return None
        return calibrated_weight(self._loss.calibration, num_negatives, self._num_items)

    def _against_rows(
        self, hidden: torch.Tensor, targets: torch.Tensor, scored: ScoredRows, log_weights: torch.Tensor | float
    ) -> torch.Tensor:
        """Cross entropy of states with the scores of sharded items. A target counts once, by the vector that was looked
        up: an encoder with dropout or noise draws again for the items of the blocks."""

        def block_partition(everyone: torch.Tensor, block: ScoredBlock) -> torch.Tensor:
            vectors = self._space(self.encoder(block.rows.features, block.rows.trainable))
            return log_partition(everyone, vectors, block.own)  # [targets of all ranks]

        positive = (hidden * self._space(targets)).sum(dim=1)  # [targets]
        others = sharded_log_partition(hidden, scored.blocks, block_partition, scored.targets, self._communicator)
        return infonce_of_partition(positive, others + log_weights)

    def _space(self, vectors: torch.Tensor) -> torch.Tensor:
        """Scale vectors for the similarity: to unit length for the cosine."""
        return unit_vectors(vectors) if self._loss.similarity == "cosine" else vectors
