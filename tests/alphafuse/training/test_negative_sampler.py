"""Draws of negatives, against their expectation, written out."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from alphafuse.config import LossConfig, TrainConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.negative_draws import shared_negatives
from alphafuse.distributed.communicator import Communicator
from alphafuse.training.negative_sampler import NegativeSampler

POPULARITY = np.array([5, 3, 2])
LOGITS = torch.tensor([0.4, -0.7, 1.2], dtype=torch.float64)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_a_batch_as_negatives_estimates_the_partition_sum_without_bias(target: int, count: int) -> None:
    """The expectation over all batches whose other three targets are drawn by popularity, and over draws of `count`
    of these targets."""
    loss = LossConfig(name="sampled_softmax", negatives="in_batch", num_negatives=count)
    sampler = NegativeSampler(TrainConfig(loss=loss, positions="last"), 0, 3, Communicator(), POPULARITY, None, False)
    expectation, draws = 0.0, 1 if count == 4 else 60
    for others in product(range(3), repeat=3):
        probability = np.prod(POPULARITY[list(others)] / POPULARITY.sum())
        targets = np.array([target, *others])[:, None]
        for step in range(draws):
            negatives = sampler.draw(Batch(targets, targets, 0), step)
            drawn = torch.from_numpy(negatives.items)
            terms = (LOGITS[drawn] + negatives.log_weights).exp()[drawn != target]
            expectation += probability * float(LOGITS[target].exp() + terms.sum()) / draws
    assert expectation == pytest.approx(float(LOGITS.exp().sum()), rel=1e-6 if draws == 1 else 0.02)


@pytest.mark.parametrize("targets", [[2], []])
def test_a_target_alone_and_a_batch_without_any_have_no_negatives(targets: list[int]) -> None:
    loss = LossConfig(name="sampled_softmax", negatives="in_batch")
    sampler = NegativeSampler(TrainConfig(loss=loss, positions="last"), 0, 3, Communicator(), POPULARITY, None, False)
    items = np.array(targets, np.int64).reshape(-1, 1)
    negatives = sampler.draw(Batch(items, items, 0), 0)
    assert negatives.items.tolist() == targets
    assert torch.isfinite(torch.as_tensor(negatives.log_weights)).all()


@pytest.mark.parametrize("loss", [{"name": "softmax"}, {"name": "diffusion", "similarity": "dot"}], ids=str)
def test_an_alignment_has_negatives_beside_a_loss_without_any(loss: dict[str, Any]) -> None:
    """These negatives are equal on all ranks and among the items that train, for any kind of negatives."""
    trained, batch = np.array([1, 4, 5, 8]), Batch(np.array([[4]]), np.array([[5]]), 0)
    config = TrainConfig(loss=LossConfig(**loss, negatives="uniform", num_negatives=50))
    drawn = [
        NegativeSampler(config, 3, 10, Communicator(), None, trained, aligns).draw(batch, 7) for aligns in (True, False)
    ]
    assert drawn[0].items.tolist() == trained[shared_negatives(3, 7, 50, 4)].tolist()
    assert drawn[1].items.shape == (0,)
