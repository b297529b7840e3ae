"""LiGR: SASRec with learnt gates on its residuals and SwiGLU in its feed-forward network.

The layers are those of Borisyuk et al. 2025 (arXiv 2502.03417), which eSASRec (RecSys 2025) puts in the place of
SASRec's. Plain torch: item vectors in, one hidden state per position out.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alphafuse.recommenders.sasrec import SASRec, SASRecBlock
from alphafuse.recommenders.settings import LiGRConfig

EXPANSION = 4
"""Width of the inner layer of a feed-forward network, in widths of the model."""


class SwiGLU(nn.Module):
    """A feed-forward network whose inner layer is gated: W₃(SiLU(W₁x) ⊙ W₂x) (Shazeer 2020, eq. 6, with biases)."""

    def __init__(self, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_dim, 2 * EXPANSION * hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(EXPANSION * hidden_dim, hidden_dim)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., hidden_dim] → the same shape."""
        gate, value = self.inner(hidden).chunk(2, dim=-1)  # [..., EXPANSION · hidden_dim] each
        return self.outer(self.dropout(functional.silu(gate) * value))


class LiGRBlock(SASRecBlock):
    """Self-attention, then SwiGLU, each with a norm before it and a gate on what it adds.

    A residual is x + σ(Wx + b) ⊙ f(norm(x)).
    """

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__(hidden_dim, num_heads, dropout)
        self.feed_forward = SwiGLU(hidden_dim, dropout)
        self.attention_gate = nn.Linear(hidden_dim, hidden_dim)
        self.feed_forward_gate = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, hidden: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """[batch, length, hidden_dim] → the same shape, or [batch, hidden_dim] at one position of each history."""
        hidden, attended = self.attend(hidden, at)
        hidden = hidden + torch.sigmoid(self.attention_gate(hidden)) * self.dropout(attended)
        fed = self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        return hidden + torch.sigmoid(self.feed_forward_gate(hidden)) * fed


class LiGR(SASRec):
    """Blocks of gated causal self-attention over the item vectors of a history."""

    settings_class = LiGRConfig
    block_class = LiGRBlock
