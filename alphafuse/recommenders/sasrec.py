"""SASRec: a causal transformer over the item vectors of a history (Kang & McAuley 2018).

Plain torch: item vectors in, one hidden state per position out.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from alphafuse.recommenders.base import Backbone, BackboneContext
from alphafuse.recommenders.settings import AttentionConfig, SASRecConfig


class SASRecBlock(nn.Module):
    """Self-attention, then a position-wise feed-forward network, each with a residual and a norm before it."""

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_dim)
        # No bias: the gradient of the keys' bias would be rounding noise alone, which Adam scales up to full steps.
        self.query_key_value = nn.Linear(hidden_dim, 3 * hidden_dim, bias=False)
        self.output = nn.Linear(hidden_dim, hidden_dim)
        self.feed_forward_norm = nn.LayerNorm(hidden_dim)
        self.feed_forward: nn.Module = nn.Sequential(
            nn.Linear(hidden_dim, hidden_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_dim, hidden_dim)
        )
        self.dropout = nn.Dropout(dropout)
        self._num_heads = num_heads
        self._attention_dropout = dropout

    def forward(self, hidden: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """[batch, length, hidden_dim] → the same shape, or [batch, hidden_dim] at one position of each history."""
        hidden, attended = self.attend(hidden, at)
        hidden = hidden + self.dropout(attended)
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))

    def attend(self, hidden: torch.Tensor, at: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The input of the block at the wanted positions, and what these attend to, each of the shape of the output."""
        batch, length, width = hidden.shape
        projected = self.query_key_value(self.attention_norm(hidden))
        per_head = projected.view(batch, length, 3, self._num_heads, width // self._num_heads)
        query, key, value = per_head.permute(2, 0, 3, 1, 4)  # [batch, heads, length, width / heads] each
        seen = None
        if at is not None:
            sample = torch.arange(batch, device=at.device)
            hidden = hidden[sample, at]  # [batch, hidden_dim]
            query = query[sample, :, at][:, :, None]  # [batch, heads, 1, width / heads]
            seen = (torch.arange(length, device=at.device) <= at[:, None])[:, None, None]  # [batch, 1, 1, length]
        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=seen,
            is_causal=at is None,
            dropout_p=self._attention_dropout if self.training else 0.0,
        )  # [batch, heads, length or 1, width / heads]
        return hidden, self.output(attended.transpose(1, 2).reshape(hidden.shape))


class SASRec(Backbone):
    """Blocks of causal self-attention over the item vectors of a history.

    Histories are padded at the end, so a causal mask keeps padding out of every valid position.

    Args:
        hidden_dim: width of item vectors and hidden states.
        history_length: longest history.

    Attributes:
        block_class: class of the blocks.
    """

    settings_class: ClassVar[type[AttentionConfig]] = SASRecConfig
    block_class: ClassVar[type[SASRecBlock]] = SASRecBlock

    def __init__(self, hidden_dim: int, history_length: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(history_length, hidden_dim) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(self.block_class(hidden_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_dim)

    @classmethod
    def build(cls, settings: AttentionConfig, context: BackboneContext) -> SASRec:
        shape = (context.hidden_dim, context.history_length)
        return cls(*shape, settings.num_layers, settings.num_heads, context.dropout(settings.dropout))

    def forward(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Map item vectors [batch, length, hidden_dim] to the hidden states of all positions, the same shape.

        The state at position t has seen the items up to and including t.

        Args:
            at: int64 [batch]; only the state at this position of each history is wanted, [batch, hidden_dim]: the
                last block then computes no other.
        """
        hidden = self.dropout(item_vectors + self.positions[: item_vectors.shape[1]])
        *blocks, last = self.blocks
        for block in blocks:
            hidden = block(hidden)
        return self.norm(last(hidden) if at is None else last(hidden, at))
