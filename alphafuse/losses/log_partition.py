"""Partition sums over items that are sharded over the ranks: log Σ_i exp(logit_i) of every target.

Every rank scores the hidden states of all ranks against the items it owns, a block at a time; what travels are the
hidden states and one number per target (the vocabulary-parallel cross entropy of Megatron-LM, Shoeybi et al. 2019,
§3). Logits exist for one block at a time: the backward pass computes them again, with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from alphafuse.distributed.communicator import Communicator
from alphafuse.kernels.negative_sums import NOTHING

Block = TypeVar("Block")


def sharded_log_partition(
    hidden: torch.Tensor,
    blocks: Sequence[Block],
    block_partition: Callable[[torch.Tensor, Block], torch.Tensor],
    targets: Sequence[int],
    communicator: Communicator,
) -> torch.Tensor:
    """log Σ exp(logit) over the items of all ranks: [targets of this rank]. A collective, forward and backward.

    Args:
        hidden: [targets of this rank, dim].
        blocks: the items of this rank.
        block_partition: log Σ exp(logit) over the items of a block, [targets of all ranks], of the hidden states of all
            ranks, which come rank after rank.
        targets: number of targets of each rank.

    The gradient of the items is that of the sum over *all* ranks' targets; a caller that averages gradients over
    ranks gets the gradient of the ranks' mean loss.
    """
    everyone: torch.Tensor = _GatherRows.apply(hidden, targets, communicator)  # [targets of all ranks, dim]

    # An empty sum first: for a rank without items, and so that the backward pass of every rank reaches the gathering.
    partial = [NOTHING + 0 * everyone.sum(dim=1)]
    for block in blocks:
        partial.append(checkpoint(block_partition, everyone, block, use_reentrant=False))
    own: torch.Tensor = _SumPartitions.apply(torch.stack(partial).logsumexp(dim=0), targets, communicator)
    return own


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks; the gradients of the copies are summed."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, counts: Sequence[int], communicator: Communicator) -> torch.Tensor:
        ctx.arguments = (counts, communicator)
        gathered, _ = communicator.all_gather_rows(rows, counts)
        return gathered.clone() if gathered is rows else gathered

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        counts, communicator = ctx.arguments
        summed = communicator.all_reduce(gradient.contiguous().clone())
        return summed.split(list(counts))[communicator.rank], None, None


class _SumPartitions(torch.autograd.Function):
    """log Σ_ranks exp(partial): [targets of all ranks] → those of this rank."""

    @staticmethod
    def forward(ctx: Any, partial: torch.Tensor, counts: Sequence[int], communicator: Communicator) -> torch.Tensor:
        highest = communicator.all_reduce(partial.clone(), "max")
        total = highest + communicator.all_reduce((partial - highest).exp()).log()  # [targets of all ranks]
        ctx.save_for_backward((partial - total).exp())
        ctx.arguments = (counts, communicator)
        return total.split(list(counts))[communicator.rank].clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (share,), (counts, communicator) = ctx.saved_tensors, ctx.arguments
        gathered, _ = communicator.all_gather_rows(gradient, counts)
        return gathered * share, None, None
