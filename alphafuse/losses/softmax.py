"""Cross entropy over the full catalog, whose item vectors are sharded over the ranks.

Every rank scores the hidden states of all ranks against the items it owns, a block at a time; maxima and sums
are reduced over the ranks (the vocabulary-parallel cross entropy of Megatron-LM, Shoeybi et al. 2019, §3).
Logits of the whole catalog never exist at once: the backward pass computes the blocks again.
"""

from __future__ import annotations

import torch

from alphafuse.collectives import Communicator

BLOCK_BYTES = 64 << 20


def sharded_softmax(
    hidden: torch.Tensor,
    positive: torch.Tensor,
    item_vectors: torch.Tensor,
    temperature: float,
    communicator: Communicator,
    block_bytes: int = BLOCK_BYTES,
) -> torch.Tensor:
    """Sum of −log softmax(target) over this rank's targets. A collective, forward and backward.

    Args:
        hidden: [targets of this rank, dim].
        positive: [targets of this rank], logits of the targets (already divided by the temperature).
        item_vectors: [rows of this rank, dim].
        temperature: divides the scores.
        block_bytes: bound of one block of logits.

    The gradient of `item_vectors` is the gradient of the sum over *all* ranks' targets; a caller that averages
    gradients over ranks gets the gradient of the ranks' mean loss.
    """
    partition: torch.Tensor = _LogPartition.apply(hidden, item_vectors, temperature, communicator, block_bytes)
    return (partition - positive).sum()


class _LogPartition(torch.autograd.Function):
    """log Σ_i exp(h·v_i / temperature) over all items of all ranks, for the targets of this rank."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: torch.Tensor,
        item_vectors: torch.Tensor,
        temperature: float,
        communicator: Communicator,
        block_bytes: int,
    ) -> torch.Tensor:
        everyone, counts = communicator.all_gather_rows(hidden)  # [targets of all ranks, dim]
        rows = max(1, block_bytes // (4 * max(1, len(everyone))))
        highest = everyone.new_full((len(everyone),), -torch.inf)
        total = everyone.new_zeros(len(everyone))
        for block in item_vectors.split(rows) if len(everyone) else ():
            logits = everyone @ block.T / temperature  # [targets, rows of the block]
            higher = torch.maximum(highest, logits.amax(dim=1))
            total = total * (highest - higher).exp() + (logits - higher[:, None]).exp().sum(dim=1)
            highest = higher
        shared = communicator.all_reduce(highest.clone(), "max")
        total = communicator.all_reduce(total * (highest - shared).exp())
        partition = shared + total.log()  # [targets of all ranks]
        start = sum(counts[: communicator.rank])
        ctx.save_for_backward(everyone, item_vectors, partition)
        ctx.arguments = (temperature, communicator, rows, counts, start)  # type: ignore[attr-defined]
        return partition[start : start + len(hidden)].clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        everyone, item_vectors, partition = ctx.saved_tensors  # type: ignore[attr-defined]
        temperature, communicator, rows, counts, start = ctx.arguments  # type: ignore[attr-defined]
        weights, _ = communicator.all_gather_rows(gradient.contiguous())
        hidden_gradient = torch.zeros_like(everyone)
        item_gradients = []
        for block in item_vectors.split(rows) if len(everyone) else ():
            logits = everyone @ block.T / temperature
            probability = (logits - partition[:, None]).exp_().mul_(weights[:, None] / temperature)
            hidden_gradient += probability @ block
            item_gradients.append(probability.T @ everyone)
        communicator.all_reduce(hidden_gradient)
        own = hidden_gradient[start : start + counts[communicator.rank]]
        items = torch.cat(item_gradients) if item_gradients else torch.zeros_like(item_vectors)
        return own, items, None, None, None
