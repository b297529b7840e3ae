"""LLMInit: ID embeddings that begin as text embeddings (Harte et al. 2023)."""

from __future__ import annotations

from typing import Any

from alphafuse.items.encoders.base import EncoderContext, ItemEncoder
from alphafuse.items.encoders.id import IdEncoder
from alphafuse.items.encoders.settings import LLMInitConfig


class LLMInitEncoder(IdEncoder):
    """h = z, where z begins as the features and is trained in all of its dimensions.

    It also serves AlphaFuse with `frozen: false`, which trains both x and z of x + [0; z]. One vector gives the same
    function; only Adam's steps on the null-space components differ from those on two.
    """

    settings_class = LLMInitConfig

    def __init__(self, hidden_dim: int) -> None:
        super().__init__(hidden_dim, "features")

    @classmethod
    def build(cls, settings: Any, context: EncoderContext) -> ItemEncoder:
        return cls(context.hidden_dim)
