"""ID embeddings alone: the classical sequential recommender, without any text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from alphafuse.config import Config, EncoderConfig
from alphafuse.config.model import Artifact
from alphafuse.items.encoders.base import EncoderContext, Initialization, ItemEncoder


class IdConfig(EncoderConfig):
    """Trainable ID embeddings alone, no text."""

    name: Literal["id"] = "id"
    initialization: Literal["zeros", "normal"] = "normal"
    """Initial values of the ID embeddings; `normal` has unit variance."""

    @property
    def reads(self) -> tuple[Artifact, ...]:
        return ()

    def check(self, config: Config) -> None:
        undirected = config.train.loss.similarity == "cosine" or config.model.backbone.generates
        if self.initialization == "zeros" and undirected:
            raise ValueError(
                "the encoder 'id' cannot learn from zeros with cosines, since they have no direction, nor with the "
                "backbone `dreamrec`, whose error is zero when all vectors are alike; take initialization: normal"
            )


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
