"""LLMInit: ID embeddings that begin as text embeddings (Harte et al. 2023)."""

from __future__ import annotations

import torch

from alphafuse.items.encoders.base import ItemEncoder


class LLMInitEncoder(ItemEncoder):
    """h = z, where z begins as the features and is trained in all of its dimensions.

    It is also AlphaFuse without freezing, whose IDs begin as zeros: x + [0; z] with both trained.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.frozen = None
        self.trainable_dim = hidden_dim
        self.initialization = "features"

    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        return trainable
