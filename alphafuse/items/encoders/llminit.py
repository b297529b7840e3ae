"""LLMInit: ID embeddings that begin as text embeddings (Harte et al. 2023)."""

from __future__ import annotations

from alphafuse.items.encoders.id import IdEncoder


class LLMInitEncoder(IdEncoder):
    """h = z, where z begins as the features and is trained in all of its dimensions.

    It is also AlphaFuse without freezing, whose IDs begin as zeros: x + [0; z] with both trained.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__(hidden_dim, "features")
