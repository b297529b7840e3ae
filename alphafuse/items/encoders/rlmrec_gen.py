"""RLMRec-Gen: the text of an item is reconstructed from its masked ID embedding (Ren et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from alphafuse.items.encoders.aligned_id import AlignedIdEncoder, two_layers
from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.settings import RLMRecGenerativeConfig


class RLMRecGenerativeEncoder(AlignedIdEncoder):
    """The text that is reconstructed from an ID, σ(mask(z)), is to be nearer to its item's text than to others.

    The loss is the paper's, −log of exp(cos(σ(mask(z_i)), e_i)/τ) over its sum with all exp(cos(σ(mask(z_i)), e_j)/τ).
    Different here, beside what `RLMRecContrastiveEncoder` names: the paper masks whole nodes of a graph, which their
    neighbours then stand in for. A sequential recommender has no graph, so the mask takes components of the ID (in
    training, the others are scaled up as in dropout), and all targets are reconstructed.

    Args:
        mask_ratio: share of the components that are masked.
    """

    settings_class = RLMRecGenerativeConfig

    def __init__(self, embeddings: FrozenFeatures, hidden_dim: int, alignment_weight: float, mask_ratio: float) -> None:
        super().__init__(embeddings, hidden_dim, alignment_weight)
        self.mask = nn.Dropout(mask_ratio)
        self.id_to_text = two_layers(hidden_dim, embeddings.dim)

    @classmethod
    def build(cls, settings: Any, context: EncoderContext) -> ItemEncoder:
        return cls(context.embeddings(), context.hidden_dim, settings.alignment_weight, settings.mask_ratio)

    def alignment_views(self, features: torch.Tensor, trainable: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.id_to_text(self.mask(trainable)), features
