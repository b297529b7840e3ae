"""The losses of a step on cases whose value is known."""

from __future__ import annotations

import pytest
import torch
from support.definitions.planned_input import planned_input
from torch.nn import functional

from alphafuse.config import LossConfig
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.base import FrozenFeatures
from alphafuse.items.encoders.unisrec import UniSRecEncoder
from alphafuse.items.item_table import Rows
from alphafuse.kernels.negative_sums import OwnNegatives
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.training.objectives.scoring_objective import ScoringObjective
from alphafuse.training.objectives.step_input import ScoredBlock, ScoredRows


@pytest.mark.parametrize("seed", range(5))
def test_the_softmax_over_the_target_alone_costs_nothing_even_with_noise(seed: int) -> None:
    """UniSRec draws dropout and noise for each vector; with a catalog of one item, no draw may cause a loss."""
    torch.manual_seed(seed)
    encoder = UniSRecEncoder(FrozenFeatures("embeddings", slice(0, 12)), 8, 8, 0.2)
    objective = ScoringObjective(encoder, SASRec(8, 2, 1, 1, 0.0), LossConfig(name="softmax"), 1, Communicator())
    text, no_ids = 40 * functional.normalize(torch.randn(1, 12), dim=1), torch.zeros(1, 0, requires_grad=True)
    step, rows = planned_input(*(torch.zeros(shape).long() for shape in ((1, 2), (1, 2), 0)), text, no_ids)
    own = OwnNegatives(torch.tensor([0, 1]), torch.tensor([0, 0]), (0, 1))
    loss = objective(rows, step, ScoredRows([ScoredBlock(Rows(text, no_ids), own)], [2]))
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
