"""LLMInit: ID embeddings that begin as text embeddings (Harte et al. 2023)."""

from __future__ import annotations

from alphafuse.items.encoders.id import IdEncoder


class LLMInitEncoder(IdEncoder):
    """h = z, where z begins as the features and is trained in all of its dimensions.

    It also stands for AlphaFuse without freezing, x + [0; z] with both trained: the same function of one vector, though
    Adam would move the null-space components of two.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__(hidden_dim, "features")
