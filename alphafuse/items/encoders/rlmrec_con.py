"""RLMRec-Con: ID embeddings contrasted with texts that are mapped into their space (Ren et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch

from alphafuse.items.encoders.aligned_id import AlignedIdEncoder, two_layers
from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.settings import RLMRecContrastiveConfig


class RLMRecContrastiveEncoder(AlignedIdEncoder):
    """The ID z is to be nearer to the mapped text σ(e) of its item than to those of other items.

    The loss is the paper's, −log of exp(cos(z_i, σ(e_i))/τ) over its sum with all exp(cos(z_i, σ(e_j))/τ). Different
    here: i are the targets of a step and j its negatives, where the paper takes the items of the batch for both; τ is
    that of the recommendation loss; only items are aligned, since users have no embeddings in a sequential
    recommender; e is the embedding of the item's text rather than of a profile that a language model wrote.
    """

    settings_class = RLMRecContrastiveConfig

    def __init__(self, embeddings: FrozenFeatures, hidden_dim: int, alignment_weight: float) -> None:
        super().__init__(embeddings, hidden_dim, alignment_weight)
        self.text_to_id = two_layers(embeddings.dim, hidden_dim)

    @classmethod
    def build(cls, settings: Any, context: EncoderContext) -> ItemEncoder:
        return cls(context.embeddings(), context.hidden_dim, settings.alignment_weight)

    def alignment_views(self, features: torch.Tensor, trainable: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return trainable, self.text_to_id(features)
