"""Cosines of vectors, with backward passes written out.

Autograd would compose them of three times as many passes over the vectors.
"""

from __future__ import annotations

from typing import Any

import torch

SHORTEST = 1e-12
"""Vectors are divided by no length below this, as torch.nn.functional.normalize does."""


def unit_vectors(vectors: torch.Tensor) -> torch.Tensor:
    """Scale vectors [vectors, dim] to unit length; those of zeros stay zeros."""
    scaled: torch.Tensor = _UnitVectors.apply(vectors)
    return scaled


def unit_scores(vectors: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Products of queries [queries, dim] and the unit vectors of their own vectors [queries, count, dim]: [queries,
    count]. Dividing the products by the lengths is cheaper than dividing the vectors."""
    scores: torch.Tensor = _UnitScores.apply(vectors, queries)
    return scores


class _UnitVectors(torch.autograd.Function):
    """u = v / |v|; ∂L/∂v = (g − u (g · u)) / |v|, with g = ∂L/∂u."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor) -> torch.Tensor:
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_(min=SHORTEST)  # [vectors, 1]
        scaled = vectors / lengths
        ctx.save_for_backward(scaled, lengths)
        return scaled

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        scaled, lengths = ctx.saved_tensors
        along = (gradient * scaled).sum(dim=1, keepdim=True)  # [vectors, 1]
        return torch.addcmul(gradient, scaled, along, value=-1).div_(lengths)


class _UnitScores(torch.autograd.Function):
    """s = v · q / |v|; ∂L/∂q = Σ g v / |v|, ∂L/∂v = (q − s v / |v|) g / |v|, with g = ∂L/∂s."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        lengths = torch.linalg.vector_norm(vectors, dim=2).clamp_(min=SHORTEST)  # [queries, count]
        scores = (vectors @ queries[:, :, None]).squeeze(2).div_(lengths)
        ctx.save_for_backward(vectors, queries, lengths, scores)
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vectors, queries, lengths, scores = ctx.saved_tensors
        scaled = gradient / lengths  # [queries, count]
        of_queries = (scaled[:, None] @ vectors).squeeze(1)
        of_vectors = scaled[:, :, None] * queries[:, None]
        of_vectors.addcmul_(vectors, (scaled * scores / lengths)[:, :, None], value=-1)
        return of_vectors, of_queries
