"""The dense part of a model, whatever it is trained for: from looked-up rows to item vectors and hidden states.

Plain torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import Rows
from alphafuse.items.lookup_plan import PADDING
from alphafuse.recommenders.base import states_after
from alphafuse.training.objectives.step_input import StepInput

if TYPE_CHECKING:
    from alphafuse.data.sampling.batches import Batch


class DenseModel(nn.Module):
    """Item encoder and backbone. A subclass computes a loss in `forward`: from the rows looked up for the step's items,
    the step's input and, for losses over sharded items, `ScoredRows`, to the sum over this rank's targets, a scalar."""

    def __init__(self, encoder: ItemEncoder, backbone: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone

    def draw(self, number: int, batch: Batch) -> Any:
        """Draw on the host the random numbers of a micro-batch of step `number` that must not depend on the ranks, as
        tensors of the CPU; `StepInput.draws` has them in `forward`. Most models need none."""
        return None

    def hidden_states(self, rows: Rows, histories: torch.Tensor) -> torch.Tensor:
        """Vectors that the items are ranked by: the states after the last items of histories [queries, length], as
        [queries, hidden_dim]."""
        gathered = rows.gather(self.encoder(rows.features, rows.trainable))
        item_vectors = gathered.view(*histories.shape, gathered.shape[1])
        return states_after(self.backbone, item_vectors, histories == PADDING)

    def gather(self, rows: Rows, step: StepInput[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Item vectors of the histories [samples, length, hidden_dim], zeros for padding; and, side by side, those of
        the targets and of the negatives [targets + negatives, hidden_dim]."""
        # One gathering for all, whose backward pass writes the gradient of the rows once.
        gathered = rows.gather(self.encoder(rows.features, rows.trainable))
        in_histories = step.padding.numel()
        histories, others = gathered.split([in_histories, len(gathered) - in_histories])
        return _histories(histories, step.padding), others

    def target_states(self, item_vectors: torch.Tensor, step: StepInput[Any]) -> torch.Tensor:
        """States [targets, hidden_dim] at the positions that predict."""
        if step.last is not None:
            return self._run_backbone(item_vectors, step.last)
        return step.predicted(self._run_backbone(item_vectors).flatten(0, 1))

    def _run_backbone(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """The backbone in the precision of its weights; scores and losses are computed in float32."""
        return self.backbone(item_vectors.to(next(self.backbone.parameters()).dtype), at).float()


def _histories(gathered: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """Item vectors [samples · length, dim] as [samples, length, dim], with zeros for padding [samples, length]."""
    return gathered.view(*padding.shape, gathered.shape[1]).masked_fill(padding[:, :, None], 0.0)
