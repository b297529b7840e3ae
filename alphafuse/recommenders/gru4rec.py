"""GRU4Rec: a recurrent network over the item vectors of a history (Hidasi et al. 2016).

Plain torch: item vectors in, one hidden state per position out.
"""

from __future__ import annotations

import torch
from torch import nn

from alphafuse.recommenders.base import Backbone, BackboneContext
from alphafuse.recommenders.settings import GRU4RecConfig


class GRU4Rec(Backbone):
    """Gated recurrent units over the item vectors of a history.

    Histories are padded at the end, which a recurrent network reaches only after every valid position.

    Args:
        hidden_dim: width of item vectors and hidden states.
        state_dim: width of the recurrent state, which is projected to `hidden_dim`.
    """

    settings_class = GRU4RecConfig

    def __init__(self, hidden_dim: int, state_dim: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        # `nn.GRU` applies dropout between layers only.
        self.gru = nn.GRU(
            hidden_dim, state_dim, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0
        )
        self.output = nn.Linear(state_dim, hidden_dim)

    @classmethod
    def build(cls, settings: GRU4RecConfig, context: BackboneContext) -> GRU4Rec:
        state_dim = settings.state_dim or context.hidden_dim
        return cls(context.hidden_dim, state_dim, settings.num_layers, settings.dropout)

    def forward(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Map item vectors [batch, length, hidden_dim] to the hidden states of all positions, the same shape.

        The state at position t has seen the items up to and including t.

        Args:
            at: int64 [batch]; only the state at this position of each history is wanted, [batch, hidden_dim].
        """
        states, _ = self.gru(self.dropout(item_vectors))  # [batch, length, state_dim]
        if at is not None:
            states = states[torch.arange(len(at), device=at.device), at]  # [batch, state_dim]
        return self.output(self.dropout(states))
