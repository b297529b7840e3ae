"""UniSRec: a mixture of whitening experts makes item vectors of text embeddings (Hou et al. 2022)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.settings import UniSRecConfig
from alphafuse.items.encoders.text_only import Adapter, TextOnlyEncoder


class UniSRecEncoder(TextOnlyEncoder):
    """The item vectors of UniSRec (§2.1); its pre-training over several domains and its contrastive tasks are left
    out, as in AlphaFuse's comparison.

    Within a step, an item has the same dropout and noise wherever a rank's lookup holds it; the blocks of a loss over
    the catalog have draws of their own.
    """

    settings_class = UniSRecConfig

    def __init__(self, embeddings: FrozenFeatures, hidden_dim: int, num_experts: int, dropout: float) -> None:
        super().__init__(embeddings, Adapter(ExpertMixture(embeddings.dim, hidden_dim, num_experts, dropout)))

    @classmethod
    def build(cls, settings: UniSRecConfig, context: EncoderContext) -> ItemEncoder:
        return cls(context.embeddings(), context.hidden_dim, settings.num_experts, settings.dropout)


class ExpertMixture(nn.Module):
    """v = Σ_k g_k v_k, with g = softmax(x W₁ + δ) and δ = N(0, 1) · softplus(x W₂) in training (UniSRec, eq. 3–5).

    W₁ and W₂ begin as zeros, so that no expert is preferred at first (Shazeer et al. 2017, appendix A).
    """

    def __init__(self, input_dim: int, output_dim: int, num_experts: int, dropout: float) -> None:
        super().__init__()
        self.experts = nn.ModuleList(WhiteningExpert(input_dim, output_dim, dropout) for _ in range(num_experts))
        self.gate = nn.Parameter(torch.zeros(input_dim, num_experts))
        self.noise = nn.Parameter(torch.zeros(input_dim, num_experts))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """[rows, input_dim] → [rows, output_dim]."""
        logits = text @ self.gate  # [rows, experts]
        if self.training:
            logits = logits + torch.randn_like(logits) * functional.softplus(text @ self.noise)
        shares = logits.softmax(dim=1)
        weighted = (shares[:, k : k + 1] * expert(text) for k, expert in enumerate(self.experts))
        return sum(weighted, start=text.new_zeros(()))


class WhiteningExpert(nn.Module):
    """Parametric whitening: v = (x − b) W (UniSRec, eq. 2), with dropout on x."""

    def __init__(self, input_dim: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(input_dim))
        self.weight = nn.Linear(input_dim, output_dim, bias=False)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        whitened: torch.Tensor = self.weight(self.dropout(text) - self.bias)
        return whitened
