"""Second loss of methods that align text and ID: the two views of a target against those of other items.

Plain torch.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import PADDING, Rows
from alphafuse.losses.sampled import infonce
from alphafuse.training.objectives.step_input import StepInput


def alignment_loss(encoder: ItemEncoder, rows: Rows, step: StepInput, temperature: float) -> torch.Tensor:
    """InfoNCE between the encoder's two views of each target, against the second views of the step's negatives, with
    cosines over the temperature; summed over the targets, and weighted: a scalar, 0 for methods that align nothing.
    Items without a text, whose features are zeros, have nothing to be aligned with: they neither count nor are compared
    with.

    Args:
        rows: rows looked up for `step.items()`.
    """
    if not encoder.alignment_weight:
        return rows.trainable.new_zeros(())
    views = encoder.alignment_views(rows.features, rows.trainable)
    first, second = (functional.normalize(view, dim=1) for view in views)  # [distinct, dim] each
    _, target, negative = step.split(rows.inverse)  # as positions in the distinct rows
    target = target[(step.targets != PADDING).flatten()]  # [targets]
    negative = negative.view(step.negatives.shape)
    anchor = first[target]
    positive = (anchor * second[target]).sum(dim=1)
    shared = negative.dim() == 1
    against = anchor @ second[negative].T if shared else (second[negative] @ anchor[:, :, None]).squeeze(2)
    described = rows.features.any(dim=1)  # [distinct] of bool
    against = against.masked_fill((negative == target[:, None]) | ~described[negative], -torch.inf)
    aligned = described[target]
    return encoder.alignment_weight * infonce(positive[aligned] / temperature, against[aligned] / temperature)
