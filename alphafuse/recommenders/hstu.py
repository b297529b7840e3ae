"""HSTU: hierarchical sequential transduction units over the item vectors of a history (Zhai et al. 2024).

Plain torch: item vectors in, one hidden state per position out. Positions enter only by the bias of their
distance; the paper's bias of the time between interactions is left out, since histories carry no times.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alphafuse.recommenders.base import Backbone, BackboneContext
from alphafuse.recommenders.settings import HSTUConfig


class HSTU(Backbone):
    """Blocks of gated pointwise attention over the item vectors of a history.

    Histories are padded at the end, so the causal mask keeps padding out of every valid position.

    Args:
        hidden_dim: width of item vectors and hidden states.
        history_length: longest history.
    """

    settings_class = HSTUConfig

    def __init__(self, hidden_dim: int, history_length: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            HSTUBlock(hidden_dim, history_length, num_heads, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_dim)

    @classmethod
    def build(cls, settings: HSTUConfig, context: BackboneContext) -> HSTU:
        shape = (context.hidden_dim, context.history_length)
        return cls(*shape, settings.num_layers, settings.num_heads, context.dropout(settings.dropout))

    def forward(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Map item vectors [batch, length, hidden_dim] to the hidden states of all positions, the same shape.

        The state at position t has seen the items up to and including t.

        Args:
            at: int64 [batch]; only the state at this position of each history is wanted, [batch, hidden_dim]: the
                last block then attends from no other.
        """
        hidden = self.dropout(item_vectors)
        *blocks, last = self.blocks
        for block in blocks:
            hidden = block(hidden)
        return self.norm(last(hidden) if at is None else last(hidden, at[:, None]).squeeze(1))


class HSTUBlock(nn.Module):
    """Pointwise attention, gated, with a residual: Zhai et al. 2024, eq. 1 to 3.

    (U, V, Q, K) = SiLU(f₁(norm(X))), A = SiLU(QKᵀ + b) for each head, Y = X + f₂(norm(AV) ⊙ U). The weights A need not
    sum to one, so the number of earlier items that match a query counts.
    """

    def __init__(self, hidden_dim: int, history_length: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(hidden_dim)
        self.projection = nn.Linear(hidden_dim, 4 * hidden_dim)
        self.distance_bias = nn.Parameter(torch.randn(num_heads, history_length) * 0.02)
        self.attention_norm = nn.LayerNorm(hidden_dim)
        self.output = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """[batch, length, hidden_dim] → the same shape, or [batch, wanted, hidden_dim] at the positions `at`
        [batch, wanted] of each history."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        projected = functional.silu(self.projection(self.input_norm(hidden)))
        gate, value, query, key = projected.chunk(4, dim=2)  # [batch, length, hidden_dim] each
        if at is not None:
            sample = torch.arange(len(at), device=at.device)[:, None]
            hidden, gate, query = hidden[sample, at], gate[sample, at], query[sample, at]
        distance = (positions[None] if at is None else at)[:, :, None] - positions  # [batch or 1, wanted, length]
        bias = self.distance_bias[:, distance.clamp(min=0)].transpose(0, 1)  # [batch or 1, heads, wanted, length]
        weights = functional.silu(self._per_head(query) @ self._per_head(key).transpose(2, 3) + bias)
        weights = weights.masked_fill((distance < 0)[:, None], 0.0)
        attended = (weights @ self._per_head(value)).transpose(1, 2).reshape(hidden.shape)
        return hidden + self.output(self.dropout(self.attention_norm(attended) * gate))

    def _per_head(self, vectors: torch.Tensor) -> torch.Tensor:
        """[batch, positions, hidden_dim] → [batch, heads, positions, hidden_dim / heads]."""
        heads = len(self.distance_bias)
        return vectors.unflatten(2, (heads, vectors.shape[2] // heads)).transpose(1, 2)
