"""MoRec: an item is what a language model makes of its text (Yuan et al. 2023)."""

from __future__ import annotations

from torch import nn

from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.settings import MoRecConfig
from alphafuse.items.encoders.text_only import Adapter, TextOnlyEncoder


class MoRecEncoder(TextOnlyEncoder):
    """h = GELU(W e + b), with e the scaled language embedding.

    As in AlphaFuse's comparison, the language model is frozen; MoRec itself trains it with the recommender.
    """

    settings_class = MoRecConfig

    def __init__(self, embeddings: FrozenFeatures, hidden_dim: int) -> None:
        super().__init__(embeddings, Adapter(nn.Linear(embeddings.dim, hidden_dim), nn.GELU()))

    @classmethod
    def build(cls, settings: MoRecConfig, context: EncoderContext) -> ItemEncoder:
        return cls(context.embeddings(), context.hidden_dim)
