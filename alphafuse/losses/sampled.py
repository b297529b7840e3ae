"""Losses against sampled negatives. Each returns the sum over the targets; the caller knows what to divide by."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from alphafuse.kernels.negative_sums import sum_softplus


def infonce(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the positive among itself and its negatives (InfoNCE; AlphaFuse §4.1.3).

    With the weights of `log_weights` on the negatives, the same formula estimates the softmax over the catalog.

    Args:
        positive: [targets], logits.
        negative: [targets, negatives], logits; −inf where a negative does not count.

    Returns:
        The sum over the targets.
    """
    everything = torch.cat([positive[:, None], negative], dim=1)
    first = torch.zeros(len(positive), dtype=torch.int64, device=positive.device)
    return functional.cross_entropy(everything, first, reduction="sum")


def infonce_of_partition(positive: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`infonce` of the logs [targets] of the sums of exp(logit) over the negatives."""
    return (torch.logaddexp(positive, others) - positive).sum()


def binary_cross_entropy(
    positive: torch.Tensor, negative: torch.Tensor, positive_weight: float | None = None
) -> torch.Tensor:
    """Binary cross entropy of positives against 1 and negatives against 0, summed over the targets.

    Args:
        positive, negative: as in `infonce`.
        positive_weight: None: the negatives of a target weigh as much as its positive together (as in SASRec, with
            the mean over several negatives). β: β weighs the positive, 1 every negative, and their sum is divided by
            the number of negatives + 1 (gSASRec, Petrov & Macdonald 2023).
    """
    return binary_cross_entropy_of_sums(positive, *sum_softplus(negative), positive_weight)


def binary_cross_entropy_of_sums(
    positive: torch.Tensor, against: torch.Tensor, count: torch.Tensor, positive_weight: float | None = None
) -> torch.Tensor:
    """`binary_cross_entropy` of the sums [targets] of the softplus of the negatives' logits, and of their number."""
    if positive_weight is None:
        return (functional.softplus(-positive) + against / count.clamp(min=1)).sum()
    return ((positive_weight * functional.softplus(-positive) + against) / (count + 1)).sum()


def calibrated_weight(calibration: float, num_negatives: int, num_items: int) -> float:
    """β of gBCE for uniform negatives: α(t(1 − 1/α) + 1/α) with the sampling rate α = negatives / (items − 1).

    t = 0 gives 1, the ordinary binary cross entropy; t = 1 gives α, whose scores are the probabilities of the full
    softmax (gSASRec, Petrov & Macdonald 2023).
    """
    rate = min(1.0, num_negatives / (num_items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def log_weights(
    count: float, num_items: int, frequency: torch.Tensor | None, estimate_softmax: bool
) -> torch.Tensor | float:
    """Correction to add to the logits of sampled negatives, which are not equal to the target (logQ correction).

    The partition sum over the catalog is e^(s₊) + Σ_{j≠₊} e^(s_j). A negative drawn with probability q_j, `count` of
    them, weighs 1 / (count · q_j): the weighted sum over the drawn ones estimates the second term without bias. The
    positive is there with probability 1 and keeps its logit; to correct it too, as is often done, would be a bias
    (Khrylchenko et al. 2025).

    Args:
        count: number of negatives drawn for each target; its mean where it differs.
        frequency: [count], q_j, or None for a uniform draw.
        estimate_softmax: False: only the proposal is corrected, relative to a uniform draw, which has weight 1 as in
            InfoNCE; True: the weights above.
    """
    scale = math.log(num_items / count) if estimate_softmax else 0.0
    return scale if frequency is None else scale - torch.log(frequency * num_items)
