"""ID embeddings alone: the classical sequential recommender, without any text."""

from __future__ import annotations

import torch

from alphafuse.items.encoders.base import Initialization, ItemEncoder


class IdEncoder(ItemEncoder):
    """h = z, with as many trainable dimensions as the model is wide."""

    def __init__(self, hidden_dim: int, initialization: Initialization) -> None:
        super().__init__()
        self.frozen = None
        self.trainable_dim = hidden_dim
        self.initialization = initialization

    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        return trainable
