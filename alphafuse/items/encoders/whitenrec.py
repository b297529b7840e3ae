"""WhitenRec: whitened text embeddings in place of IDs (Zhang et al. 2024)."""

from __future__ import annotations

from torch import nn

from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.settings import WhitenRecConfig
from alphafuse.items.encoders.text_only import Adapter, TextOnlyEncoder


class WhitenRecEncoder(TextOnlyEncoder):
    """h = GELU(W x + b), with x the features in all kept directions, whitened by `decompose.standardize`.

    Features are whitened along the principal components; the paper's whitening (ZCA) differs by a rotation, which W can
    learn. The projection head is one layer, as in AlphaFuse's comparison, and the ensemble of WhitenRec+ is left out.
    """

    settings_class = WhitenRecConfig

    def __init__(self, directions: int, hidden_dim: int) -> None:
        frozen = FrozenFeatures("features", slice(0, directions))
        super().__init__(frozen, Adapter(nn.Linear(directions, hidden_dim), nn.GELU()))

    @classmethod
    def build(cls, settings: WhitenRecConfig, context: EncoderContext) -> ItemEncoder:
        return cls(context.directions, context.hidden_dim)
