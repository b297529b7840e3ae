"""AlphaFuse: frozen text features, with ID embeddings learnt in the null space alone (AlphaFuse §3.2)."""

from __future__ import annotations

from typing import Literal

import torch

from alphafuse.items.encoders.alphafuse_euclidean import EuclideanAlphaFuseEncoder
from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.llminit import LLMInitEncoder
from alphafuse.items.encoders.settings import AlphaFuseConfig


class AlphaFuseEncoder(ItemEncoder):
    """h = x + [0; z] (`add`) or h = [x of the row space; z] (`replace`).

    The features x are ordered by descending eigenvalue, so the null space is their last `null_dim` columns.
    The map has no weights of its own.

    Args:
        id_basis: [embedding_dim, null_dim], U_null, to learn IDs in the space of the language embeddings: their
            projections z U_null then take the place of z (the ablation "Euclidean ID, singular injection").
    """

    settings_class = AlphaFuseConfig
    id_basis: torch.Tensor | None

    def __init__(
        self,
        hidden_dim: int,
        null_dim: int,
        fusion: Literal["add", "replace"],
        initialization: Literal["zeros", "normal"],
        id_basis: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.trainable_dim = null_dim if id_basis is None else len(id_basis)
        self.initialization = initialization
        self.register_buffer("id_basis", id_basis, persistent=False)
        self._fusion = fusion
        self._row_dim = hidden_dim - null_dim
        # `replace` never reads the null-space features, so they are neither stored nor sent.
        self.frozen = FrozenFeatures("features", slice(0, hidden_dim if fusion == "add" else self._row_dim))

    @classmethod
    def build(cls, settings: AlphaFuseConfig, context: EncoderContext) -> ItemEncoder:
        """Build the method, or one of its ablations."""
        if not settings.frozen:
            return LLMInitEncoder.build(settings, context)
        if settings.injection_space == "euclidean":
            return EuclideanAlphaFuseEncoder.build(settings, context)
        basis = context.null_basis() if settings.id_space == "euclidean" else None
        return cls(context.hidden_dim, context.null_dim(), settings.fusion, settings.initialization, basis)

    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        ids = trainable if self.id_basis is None else trainable @ self.id_basis  # [rows, null_dim]
        if self._fusion == "replace":
            return torch.cat([features, ids], dim=1)
        row_space, null_space = features.tensor_split([self._row_dim], dim=1)
        return torch.cat([row_space, null_space + ids], dim=1)
