"""GRU4Rec: a recurrent network over the item vectors of a history (Hidasi et al. 2016).

Plain torch: item vectors in, one hidden state per position out.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

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
        self.gru = StackedGRU(hidden_dim, state_dim, num_layers, dropout)
        self.output = nn.Linear(state_dim, hidden_dim)

    @classmethod
    def build(cls, settings: GRU4RecConfig, context: BackboneContext) -> GRU4Rec:
        state_dim = settings.state_dim or context.hidden_dim
        return cls(context.hidden_dim, state_dim, settings.num_layers, context.dropout(settings.dropout))

    def forward(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Map item vectors [batch, length, hidden_dim] to the hidden states of all positions, the same shape.

        The state at position t has seen the items up to and including t.

        Args:
            at: int64 [batch]; only the state at this position of each history is wanted, [batch, hidden_dim].
        """
        states = self.gru(self.dropout(item_vectors))  # [batch, length, state_dim]
        if at is not None:
            states = states[torch.arange(len(at), device=at.device), at]  # [batch, state_dim]
        return self.output(self.dropout(states))


class StackedGRU(nn.GRU):
    """Layers of `nn.GRU`, with dropout between them that torch's generator draws.

    The dropout of `nn.GRU` itself is cuDNN's on a GPU, with a random state of its own: neither a seed nor a checkpoint
    reaches it, so that a resumed training would differ. Parameters, their names and what is drawn on a CPU are those
    of `nn.GRU`.
    """

    def __init__(self, input_dim: int, state_dim: int, num_layers: int, dropout: float) -> None:
        super().__init__(input_dim, state_dim, num_layers)
        self._dropout_between = dropout

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """[batch, length, input_dim] → states of the last layer [batch, length, state_dim]."""
        states = inputs.transpose(0, 1)  # [length, batch, dim]
        start = states.new_zeros(1, states.shape[1], self.hidden_size)
        for layer, weights in enumerate(self.all_weights):
            if layer:
                states = functional.dropout(states, self._dropout_between, self.training)
            states, _ = torch.gru(states, start, tuple(weights), True, 1, 0.0, self.training, False, False)
        return states.transpose(0, 1)
