"""Forward and backward pass compile as one graph, which serves a whole epoch with a shorter last batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental import _config as symbolic_shapes

from alphafuse.config import LossConfig
from alphafuse.data.sampling.negative_draws import shared_negatives, uniform_negatives
from alphafuse.data.sampling.samples import PADDING
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.item_table import ItemTable
from alphafuse.items.row_adam import RowAdam
from alphafuse.items.row_sums import gather
from alphafuse.losses.cosines import unit_scores, unit_vectors
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.training.objectives.scoring_objective import ScoringObjective
from alphafuse.training.objectives.step_input import StepInput, plan_input

NUM_ITEMS, LENGTH, WIDTH = 200, 6, 10


def _batch(table: ItemTable, step: int, samples: int, per_target: bool) -> tuple[Any, StepInput[None]]:
    """The plan of a lookup and the input of a batch with histories of many lengths."""
    generator = np.random.default_rng(step)
    histories, targets = generator.integers(NUM_ITEMS, size=(2, samples, LENGTH))
    padded = np.arange(LENGTH) >= generator.integers(1, LENGTH + 1, size=(samples, 1))
    histories[padded] = targets[padded] = PADDING
    wanted = targets[~padded]
    if per_target:
        negatives = uniform_negatives(0, step, 0, wanted, 4, NUM_ITEMS)
    else:
        negatives = shared_negatives(0, step, 30, NUM_ITEMS)
        negatives[:5] = wanted[:5]
    given, items = plan_input(histories, targets, negatives, 0.5, None, one_each=False)
    return table.plan(items), given


@pytest.mark.engine
@pytest.mark.parametrize("per_target", [False, True])
@symbolic_shapes.patch(use_duck_shape=False)  # sizes may be equal by chance
def test_one_graph_serves_every_batch_of_an_epoch(per_target: bool) -> None:
    for function in (gather, unit_vectors, unit_scores):  # the backward passes that are written out
        torch.compiler.allow_in_graph(function)
    torch._dynamo.reset()
    torch.manual_seed(0)
    table = ItemTable(NUM_ITEMS, WIDTH, 4, RowAdam(), Communicator())
    table.features.normal_()
    encoder, backbone = AlphaFuseEncoder(WIDTH, 4, "add", "normal"), SASRec(WIDTH, LENGTH, 1, 1, 0.1)
    objective = ScoringObjective(encoder, backbone, LossConfig(), NUM_ITEMS, Communicator())
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(objective, fullgraph=True, dynamic=True, backend=graphs)
    counts = []
    for step, samples in enumerate([9, 9, 9, 5]):
        plan, given = _batch(table, step, samples, per_target)
        results = []
        for model in (compiled, objective):
            objective.zero_grad()
            rows = table.lookup(plan)
            torch.manual_seed(step)
            loss = model(rows, given, None)
            loss.backward()
            results.append([loss.detach(), rows.trainable.grad, *(weight.grad for weight in objective.parameters())])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        counts.append(graphs.frame_count)
    assert counts[0] == counts[-1]
