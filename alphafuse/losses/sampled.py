"""Losses against sampled negatives. Each returns the sum over the targets; the caller knows what to divide by."""

from __future__ import annotations

import torch
from torch.nn import functional


def infonce(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the positive among itself and its negatives (InfoNCE; AlphaFuse §4.1.3).

    Args:
        positive: [targets], logits.
        negative: [targets, negatives], logits; −inf where a negative does not count.

    Returns:
        The sum over the targets.
    """
    everything = torch.cat([positive[:, None], negative], dim=1)
    return (everything.logsumexp(dim=1) - positive).sum()


def binary_cross_entropy(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Positives against 1, negatives against 0; the negatives of a target weigh as much as its positive
    together (SASRec, eq. 6, with the mean over several negatives).

    Args and returns as `infonce`.
    """
    counted = torch.isfinite(negative)
    against = torch.where(counted, functional.softplus(negative), 0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    return (functional.softplus(-positive) + against).sum()
