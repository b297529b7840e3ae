"""ID embeddings alone: the classical sequential recommender, without any text."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from alphafuse.config import EncoderConfig
from alphafuse.items.encoders.base import EncoderContext, Initialization, ItemEncoder
from alphafuse.items.encoders.settings import IdConfig


class IdEncoder(ItemEncoder):
    """h = z, with as many trainable dimensions as the model is wide."""

    settings_class: ClassVar[type[EncoderConfig]] = IdConfig

    def __init__(self, hidden_dim: int, initialization: Initialization) -> None:
        super().__init__()
        self.frozen = None
        self.trainable_dim = hidden_dim
        self.initialization = initialization

    @classmethod
    def build(cls, settings: Any, context: EncoderContext) -> ItemEncoder:
        return cls(context.hidden_dim, settings.initialization)

    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        return trainable
