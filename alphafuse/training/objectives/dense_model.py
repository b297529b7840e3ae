"""The dense part of a model, whatever it is trained for: from looked-up rows to item vectors and hidden states.

Plain torch.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import PADDING, Rows
from alphafuse.training.objectives.step_input import StepInput


class DenseModel(nn.Module):
    """Item encoder and backbone. A subclass computes a loss in `forward`: from the rows looked up for `step.items()`,
    the step's input and, for losses over sharded items, `ScoredRows`, to the sum over this rank's targets, a scalar."""

    def __init__(self, encoder: ItemEncoder, backbone: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone

    def hidden_states(self, rows: Rows, histories: torch.Tensor) -> torch.Tensor:
        """Vectors that the items are ranked by: the states after the last items of histories [queries, length], as
        [queries, hidden_dim]."""
        encoded = self.encoder(rows.features, rows.trainable)
        last = (histories != PADDING).sum(dim=1).clamp(min=1) - 1
        return self._run_backbone(rows.expand(encoded), last)

    def gather(self, rows: Rows, step: StepInput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Item vectors of the histories [samples, length, hidden_dim], zeros for padding; of the targets
        [samples · length, hidden_dim], arbitrary for padding; and of the negatives [negatives, hidden_dim]."""
        encoded = self.encoder(rows.features, rows.trainable)  # [distinct, hidden_dim]
        # One gathering for all, whose backward pass writes the gradient of the rows once; padding takes any row.
        gathered = functional.embedding(rows.inverse.clamp(max=len(encoded) - 1), encoded)
        in_history, targets, negatives = step.split(gathered)
        item_vectors = in_history.view(*step.histories.shape, gathered.shape[1])
        return item_vectors.masked_fill((step.histories == PADDING)[:, :, None], 0.0), targets, negatives

    def target_states(self, item_vectors: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """States [targets, hidden_dim] at the positions that predict; `predicted` [samples, length] of bool."""
        if predicted.sum(dim=1).eq(1).all():  # one target each, as in training on last positions
            return self._run_backbone(item_vectors, predicted.int().argmax(dim=1))
        return self._run_backbone(item_vectors)[predicted]

    def _run_backbone(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """The backbone in the precision of its weights; scores and losses are computed in float32."""
        return self.backbone(item_vectors.to(next(self.backbone.parameters()).dtype), at).float()
