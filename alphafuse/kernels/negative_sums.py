"""Sums over the negatives of each target, which all targets share: the log of a partition sum, or a sum of softplus.

On a GPU scores exist tile by tile alone, in the forward and in the backward pass, so that the memory does not depend on
the number of targets times that of negatives. Elsewhere they are one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from alphafuse.kernels.device import runs_kernels

NOTHING = -1e30
"""Logit of what does not count, and log of an empty sum: finite, so that gradients are zero and not NaN."""


@dataclass(frozen=True)
class OwnNegatives:
    """Negatives that are the target itself: they do not count for it.

    Attributes:
        places: int64 [pairs], their positions in the flat scores, [targets · negatives].
        targets: int64 [targets], numbers of the targets, and
        items: int64 [negatives], of the negatives: equal numbers are equal items. Or first number and end of negatives
            that are numbered in order.
    """

    places: torch.Tensor
    targets: torch.Tensor
    items: torch.Tensor | tuple[int, int]

    def numbers(self) -> torch.Tensor:
        """Numbers of the negatives: int64 [negatives]."""
        if isinstance(self.items, tuple):
            return torch.arange(*self.items, device=self.targets.device)
        return self.items


def log_partition(
    states: torch.Tensor, vectors: torch.Tensor, own: OwnNegatives, log_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """log Σ_j exp(s · v_j + w_j) over the negatives j of each target that are not the target: [targets].

    Args:
        states: [targets, dim].
        vectors: [negatives, dim], of the negatives.
        log_weights: [negatives], w; None: zeros. It gets no gradient.

    Returns:
        `NOTHING`, or less, where no negative counts.
    """
    if runs_kernels(states.device):
        from alphafuse.kernels.negative_sums_triton import tiled_log_partition

        return tiled_log_partition(states, vectors, own.targets, own.numbers(), log_weights)
    scores = exclude(states @ vectors.T, own.places, NOTHING)  # [targets, negatives]
    return (scores if log_weights is None else scores + log_weights).logsumexp(dim=1)


def softplus_sums(states: torch.Tensor, vectors: torch.Tensor, own: OwnNegatives) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ_j log(1 + exp(s · v_j)) over the negatives j of each target that are not the target, and their number:
    [targets] each. See `log_partition`."""
    if runs_kernels(states.device):
        from alphafuse.kernels.negative_sums_triton import tiled_softplus_sums

        return tiled_softplus_sums(states, vectors, own.targets, own.numbers())
    return sum_softplus(exclude(states @ vectors.T, own.places, -torch.inf))


def sum_softplus(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the softplus of logits [targets, negatives], −inf where a negative does not count; and count those that do:
    [targets] each."""
    counted = torch.isfinite(logits)
    return torch.where(counted, functional.softplus(logits), 0).sum(dim=1), counted.sum(dim=1)


def exclude(scores: torch.Tensor, places: torch.Tensor, value: float) -> torch.Tensor:
    """Set the scores at `places`, int64 [places] in the flat scores, to `value` in place, and return the scores.

    No gradient is taken back from these places: a loss to which `value` counts as nothing has none there. The scores
    must be the result of an operation that does not need them for its own backward pass, such as a product.
    """
    scores.detach().view(-1).index_fill_(0, places, value)
    return scores
