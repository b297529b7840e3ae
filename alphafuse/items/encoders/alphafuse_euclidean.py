"""AlphaFuse's ablations that inject IDs in the space of the language embeddings (arXiv 2504.19218)."""

from __future__ import annotations

from typing import Any, Literal

import torch

from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder


class EuclideanAlphaFuseEncoder(ItemEncoder):
    """h = y + U_null c, with y = s·e − μ, the centred language embedding, neither whitened nor clipped.

    c is z itself where IDs are learnt in the singular space, or U_nullᵀ z where they are learnt in the Euclidean one.
    With the fusion `replace`, the null-space component of y itself is taken out first. (The authors' code can also
    whiten y in its row space.) The map has no weights of its own.

    Args:
        basis: [embedding_dim, null_dim], U_null, orthonormal.
        mean: [embedding_dim], μ, of the scaled embeddings.
        scale: s.
    """

    basis: torch.Tensor

    def __init__(
        self,
        basis: torch.Tensor,
        mean: torch.Tensor,
        scale: float,
        id_space: Literal["singular", "euclidean"],
        fusion: Literal["add", "replace"],
        initialization: Literal["zeros", "normal"],
    ) -> None:
        super().__init__()
        embedding_dim, null_dim = basis.shape
        self.frozen = FrozenFeatures("embeddings", slice(0, embedding_dim), scale, mean.numpy())
        self.trainable_dim = null_dim if id_space == "singular" else embedding_dim
        self.initialization = initialization
        self.register_buffer("basis", basis, persistent=False)
        self._id_space = id_space
        self._fusion = fusion

    @classmethod
    def build(cls, settings: Any, context: EncoderContext) -> ItemEncoder:
        """Build the ablation from settings of AlphaFuse with `injection_space: euclidean`."""
        nullspace = context.nullspace()
        settings.check_embeddings(context.hidden_dim, len(nullspace.basis))
        spaces = (settings.id_space, settings.fusion, settings.initialization)
        return cls(context.null_basis(), torch.from_numpy(nullspace.mean).float(), nullspace.scale, *spaces)

    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        coordinates = trainable if self._id_space == "singular" else trainable @ self.basis  # [rows, null_dim]
        if self._fusion == "replace":
            coordinates = coordinates - features @ self.basis
        return features + coordinates @ self.basis.T
