"""LLMInit: ID embeddings that begin as text embeddings (Harte et al. 2023)."""

from __future__ import annotations

from typing import Any, Literal

from alphafuse.config import EncoderConfig
from alphafuse.items.encoders.base import EncoderContext, ItemEncoder
from alphafuse.items.encoders.id import IdEncoder


class LLMInitConfig(EncoderConfig):
    """Trainable embeddings that begin as the whitened features (Harte et al. 2023)."""

    name: Literal["llminit"] = "llminit"

    @property
    def width_of_features(self) -> bool:
        return True


class LLMInitEncoder(IdEncoder):
    """h = z, where z begins as the features and is trained in all of its dimensions.

    It also stands for AlphaFuse without freezing, x + [0; z] with both trained: the same function of one vector, though
    Adam would move the null-space components of two.
    """

    settings_class = LLMInitConfig

    def __init__(self, hidden_dim: int) -> None:
        super().__init__(hidden_dim, "features")

    @classmethod
    def build(cls, settings: Any, context: EncoderContext) -> ItemEncoder:
        return cls(context.hidden_dim)
