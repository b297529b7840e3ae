"""Second loss of methods that align text and ID: the two views of a target against those of other items.

Plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import Rows
from alphafuse.kernels.device import runs_kernels
from alphafuse.kernels.negative_sums import NOTHING, OwnNegatives, exclude, log_partition
from alphafuse.losses.cosines import unit_vectors
from alphafuse.losses.sampled import infonce, infonce_of_partition
from alphafuse.training.objectives.step_input import StepInput


def alignment_loss(encoder: ItemEncoder, rows: Rows, step: StepInput[Any], temperature: float) -> torch.Tensor:
    """InfoNCE between the encoder's two views of each target, against the second views of the step's negatives, with
    cosines over the temperature; summed over the targets, and weighted: a scalar.
    Items without a text, whose features are zeros, have nothing to be aligned with: they neither count nor are compared
    with.

    Args:
        rows: rows looked up for the step's items.
    """
    assert rows.plan is not None
    views = encoder.alignment_views(rows.features, rows.trainable)
    first, second = (unit_vectors(view) for view in views)  # [distinct, dim] each
    _, target, negative = step.split(rows.plan.gathering.places)  # as positions in the distinct rows
    anchor = functional.embedding(target, first)  # [targets, dim]
    positive = (anchor * functional.embedding(target, second)).sum(dim=1)
    others = functional.embedding(negative.view(step.negatives), second)  # [*shape of the negatives, dim]
    described = rows.features.any(dim=1)  # [distinct] of bool
    if len(step.negatives) == 1 and runs_kernels(anchor.device):
        compared = torch.where(described[negative], 0.0, NOTHING)  # [negatives], as logarithms of weights
        own = OwnNegatives(step.own, target, negative)
        sums = log_partition(anchor / temperature, others, own, compared).masked_fill(~described[target], NOTHING)
        return encoder.alignment_weight * infonce_of_partition(positive / temperature, sums)
    against = anchor @ others.T if len(step.negatives) == 1 else (others @ anchor[:, :, None]).squeeze(2)
    compared = described[negative].view(step.negatives) & described[target][:, None]  # [targets, count]
    # A target that is compared with nothing costs nothing: it is all of its own partition sum.
    against = exclude(against.masked_fill(~compared, -torch.inf), step.own, -torch.inf)
    return encoder.alignment_weight * infonce(positive / temperature, against / temperature)
