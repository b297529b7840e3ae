"""iDreamRec: whitened text embeddings as the space in which items are recommended (Hu et al. 2024)."""

from __future__ import annotations

from torch import nn

from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.settings import IDreamRecConfig
from alphafuse.items.encoders.text_only import TextOnlyEncoder


class IDreamRecEncoder(TextOnlyEncoder):
    """h = x, the features, whitened by `decompose.standardize`; no weights and nothing trained per item.

    The paper's backbone is a diffusion model (DreamRec); the item vectors fit any backbone.
    """

    settings_class = IDreamRecConfig

    def __init__(self, hidden_dim: int) -> None:
        super().__init__(FrozenFeatures("features", slice(0, hidden_dim)), nn.Identity())

    @classmethod
    def build(cls, settings: IDreamRecConfig, context: EncoderContext) -> ItemEncoder:
        return cls(context.hidden_dim)
