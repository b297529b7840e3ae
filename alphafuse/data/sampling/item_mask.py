"""Hides items of histories while a model trains, so that no prediction leans on a few of them: the item mask of CL4SRec
(Xie et al. 2022, arXiv 2010.14395, §3.2.2), as noise and without its contrastive loss.

The hidden items of a sample depend on seed, step and position in the global batch, and not on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.counter import random_rows, uniform
from alphafuse.data.sampling.samples import PADDING

STREAM = 2**40
"""Added to the seed: the negatives of a step are drawn from the stream of the seed itself."""


def masked_steps(steps: Iterable[list[Batch]], seed: int, first: int, share: float) -> Iterator[list[Batch]]:
    """Hide items in the micro-batches of steps, which are numbered from `first` on."""
    for number, batches in enumerate(steps, first):
        yield [mask_items(batch, seed, number, share) for batch in batches]


def mask_items(batch: Batch, seed: int, step: int, share: float) -> Batch:
    """Hide each item of the histories with the probability `share`: its place is padding then, and a model reads a
    vector of zeros there. Targets stay."""
    samples, length = batch.histories.shape
    words = random_rows(STREAM + seed, step, batch.first_sample, samples, length)[:, :length]
    return replace(batch, histories=np.where(uniform(words) < share, PADDING, batch.histories))
