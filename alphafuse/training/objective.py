"""What one training step computes from the rows it looked up: encode, run the backbone, score, sum the losses.

Plain torch but for losses over sharded items, whose collectives sit in `alphafuse.losses.partition`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from alphafuse.collectives import Communicator
from alphafuse.config import LossConfig
from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.table import PADDING, Rows
from alphafuse.losses.partition import NOTHING, sharded_log_partition
from alphafuse.losses.sampled import binary_cross_entropy, calibrated_weight, infonce

SHORTEST = 1e-12
"""Vectors are divided by no length below this, as torch.nn.functional.normalize does."""


@dataclass(frozen=True)
class StepInput:
    """Item indices of one micro-batch of one rank.

    Attributes:
        histories, targets: int64 [samples, length], −1 where there is none.
        negatives: int64 [count], for all targets, or [targets, count] (for the positions that have a target); empty
            where targets are scored against a `Catalog`.
        log_weights: added to the logits of the negatives: a number or [count].
    """

    histories: torch.Tensor
    targets: torch.Tensor
    negatives: torch.Tensor
    log_weights: torch.Tensor | float

    def items(self) -> torch.Tensor:
        """All item indices that the step needs, flat: the argument of the one lookup."""
        return torch.cat([self.histories.flatten(), self.targets.flatten(), self.negatives.flatten()])


@dataclass(frozen=True)
class Catalog:
    """Rows of this rank that the targets of all ranks are scored against.

    Attributes:
        blocks: of bounded size.
        everyones_targets: int64 [targets of all ranks], as row numbers of this rank; a target is not its own negative.
            None where the rows are the whole catalog, with the targets in it.
    """

    blocks: list[Rows]
    everyones_targets: torch.Tensor | None


class Objective(nn.Module):
    """The dense weights (encoder and backbone) and the loss on them."""

    def __init__(
        self, encoder: ItemEncoder, backbone: nn.Module, loss: LossConfig, num_items: int, communicator: Communicator
    ) -> None:
        super().__init__()
        self._num_items = num_items
        self.encoder = encoder
        self.backbone = backbone
        self._loss = loss
        self._communicator = communicator

    def forward(self, rows: Rows, step: StepInput, catalog: Catalog | None) -> torch.Tensor:
        """Sum of the losses over this rank's targets, a scalar.

        Args:
            rows: what `step.items()` looked up.
            catalog: for losses over sharded items.
        """
        encoded = self.encoder(rows.features, rows.trainable)  # [distinct, hidden_dim]
        # One gathering for all, whose backward pass writes the gradient of the rows once; padding takes any row.
        gathered = functional.embedding(rows.inverse.clamp(max=len(encoded) - 1), encoded)
        in_history, targets, negatives = gathered.split(
            [step.histories.numel(), step.targets.numel(), step.negatives.numel()]
        )
        item_vectors = in_history.view(*step.histories.shape, -1)  # [samples, length, hidden_dim]
        item_vectors = item_vectors.masked_fill((step.histories == PADDING)[:, :, None], 0.0)
        predicted = step.targets != PADDING
        hidden = self._space(self._target_states(item_vectors, predicted))  # [targets, hidden_dim]
        target_vectors = self._space(targets[predicted.flatten()])
        positive = (hidden * target_vectors).sum(dim=1) / self._loss.temperature  # [targets]
        if catalog is not None:
            return self._against_catalog(hidden, positive, catalog, step.log_weights)
        aligned = self._alignment(rows, step, predicted) if self.encoder.alignment_weight else 0.0
        if step.negatives.dim() == 1:
            negative = hidden @ self._space(negatives).T  # [targets, count]
            negative = negative.masked_fill(step.negatives == step.targets[predicted][:, None], -torch.inf)
        else:
            chosen = negatives.view(*step.negatives.shape, -1)  # [targets, count, hidden_dim]
            negative = (chosen @ hidden[:, :, None]).squeeze(2)
            if self._loss.similarity == "cosine":  # dividing the products is cheaper than the vectors
                negative = negative / torch.linalg.vector_norm(chosen, dim=2).clamp(min=SHORTEST)
        return self._against_negatives(positive, negative / self._loss.temperature + step.log_weights) + aligned

    def _alignment(self, rows: Rows, step: StepInput, predicted: torch.Tensor) -> torch.Tensor:
        """InfoNCE between the encoder's two views of each target, against the second views of the step's negatives,
        with cosines over the loss's temperature; summed over the targets, and weighted."""
        first, second = (
            functional.normalize(view, dim=1) for view in self.encoder.alignment_views(rows.features, rows.trainable)
        )
        _, target, negative = rows.inverse.split([step.histories.numel(), step.targets.numel(), step.negatives.numel()])
        target = target[predicted.flatten()]  # [targets], as positions in the distinct rows
        negative = negative.view(step.negatives.shape)
        anchor = first[target]
        positive = (anchor * second[target]).sum(dim=1)
        if negative.dim() == 1:
            against = (anchor @ second[negative].T).masked_fill(negative == target[:, None], -torch.inf)
        else:
            against = (second[negative] @ anchor[:, :, None]).squeeze(2)
        temperature = self._loss.temperature
        return self.encoder.alignment_weight * infonce(positive / temperature, against / temperature)

    def _against_negatives(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """The loss of logits [targets] and [targets, count]."""
        if self._loss.name == "bce":
            return binary_cross_entropy(positive, negative)
        if self._loss.name == "gbce":
            weight = calibrated_weight(self._loss.calibration, negative.shape[1], self._num_items)
            return binary_cross_entropy(positive, negative, weight)
        return infonce(positive, negative)

    def _against_catalog(
        self, hidden: torch.Tensor, positive: torch.Tensor, catalog: Catalog, log_weights: torch.Tensor | float
    ) -> torch.Tensor:
        """Cross entropy with the scores of sharded items."""

        def score(everyone: torch.Tensor, block: Rows) -> torch.Tensor:
            vectors = self._space(self.encoder(block.features, block.trainable))
            logits = everyone @ (vectors.T / self._loss.temperature)  # [targets of all ranks, rows of the block]
            if catalog.everyones_targets is None:
                return logits
            return logits.masked_fill(block.requested == catalog.everyones_targets[:, None], NOTHING)

        log_partition = sharded_log_partition(hidden, catalog.blocks, score, self._communicator)
        if catalog.everyones_targets is not None:
            log_partition = torch.logaddexp(positive, log_partition + log_weights)
        return (log_partition - positive).sum()

    def hidden_states(self, rows: Rows, histories: torch.Tensor) -> torch.Tensor:
        """State behind the last item of each history [queries, length] → [queries, hidden_dim]."""
        encoded = self.encoder(rows.features, rows.trainable)
        last = (histories != PADDING).sum(dim=1).clamp(min=1) - 1
        return self._run_backbone(rows.expand(encoded), last)

    def _target_states(self, item_vectors: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """States [targets, hidden_dim] at the positions that predict; `predicted` [samples, length] of bool."""
        if predicted.sum(dim=1).eq(1).all():  # one target each, as in training on last positions
            return self._run_backbone(item_vectors, predicted.int().argmax(dim=1))
        return self._run_backbone(item_vectors)[predicted]

    def _run_backbone(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """The backbone in the precision of its weights; scores and losses are computed in float32."""
        return self.backbone(item_vectors.to(next(self.backbone.parameters()).dtype), at).float()

    def _space(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors as the similarity wants them: of unit length for the cosine."""
        return functional.normalize(vectors, dim=-1) if self._loss.similarity == "cosine" else vectors
