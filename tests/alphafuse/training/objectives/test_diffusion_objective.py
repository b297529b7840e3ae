"""The loss of DreamRec against loops over the targets in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.workspaces.tiny_workspace import HIDDEN_DIM, NUM_ITEMS, tiny_config, tiny_workspace

from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.noise import target_noise
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.table_building import build_table
from alphafuse.recommenders.diffusion import Diffusion, Schedule, remaining_signal
from alphafuse.training.objectives.objective_building import build_objective
from alphafuse.training.objectives.step_input import plan_input
from alphafuse.training.scoring_model import ScoringModel

BACKBONE = {
    "name": "dreamrec",
    "dropout": 0.0,
    "timesteps": 40,
    "beta_range": [0.002, 0.5],
    "sampling_stride": 10,
    "condition_dropout": 0.4,
}
TRAIN: dict[str, Any] = {"loss": {"name": "diffusion", "similarity": "dot"}}
HISTORIES = torch.tensor([[3, 9, 4, -1], [29, 0, 7, 7]])


@pytest.mark.parametrize(
    ("targets", "schedule"),
    [([[9, 4, 8, -1], [-1, -1, 7, 2]], "linear"), ([[-1, -1, 8, -1], [-1, -1, -1, 2]], "cosine")],
    ids=["all", "last"],
)
def test_loss_and_gradients_are_those_of_loops_over_the_targets(
    tmp_path: Path, targets: list[list[int]], schedule: Schedule
) -> None:
    settings = {**BACKBONE, "schedule": schedule}
    config, workspace, communicator = tiny_config(tmp_path, settings, **TRAIN), tiny_workspace(tmp_path), Communicator()
    objective = build_objective(config, workspace, communicator).double()
    table = build_table(config, workspace, objective.encoder, communicator, torch.device("cpu"))
    table.trainable.normal_(generator=torch.Generator().manual_seed(2))
    first_sample, number = 5, 11
    batch = Batch(HISTORIES.numpy(), np.array(targets), first_sample)
    draws, one_each = objective.draw(number, batch), targets[0][0] < 0
    step, items = plan_input(batch.histories, batch.targets, np.zeros(0, np.int64), 0.0, draws, one_each)
    rows = table.lookup(table.plan(items))
    found = objective(rows, step, None)

    distinct = objective.encoder(rows.features, rows.trainable).double()
    vectors = torch.cat([distinct, torch.zeros(1, HIDDEN_DIM)])  # the last one for padding
    numbers = np.unique(items[items >= 0]).tolist()
    histories, of_targets = (
        vectors[torch.tensor([[numbers.index(item) if item >= 0 else -1 for item in row] for row in rows_of_items])]
        for rows_of_items in (HISTORIES.tolist(), targets)
    )
    backbone: Any = objective.backbone
    conditions = backbone.history_encoder(histories)
    signal = remaining_signal(schedule, 40, (0.002, 0.5)).tolist()
    expected, dropped = torch.zeros((), dtype=torch.float64), []
    for sample in range(2):
        for position, target in enumerate(targets[sample]):
            if target >= 0:
                slot = (first_sample + sample) * 4 + position
                drawn = target_noise(config.seed, number, slot, np.ones(1, bool), HIDDEN_DIM, 40, 0.4)
                t, noise = int(drawn.timesteps[0]), torch.from_numpy(drawn.noise[0]).double()
                vector = of_targets[sample, position]
                noisy = signal[t] ** 0.5 * vector + (1 - signal[t]) ** 0.5 * noise
                condition = backbone.no_condition if drawn.dropped[0] else conditions[sample, position]
                clean = backbone.denoiser(noisy[None], condition[None], torch.tensor([t]))[0]
                expected = expected + (clean - vector).square().sum() / HIDDEN_DIM
                dropped.append(bool(drawn.dropped[0]))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    inputs = [rows.trainable, *objective.parameters()]
    gradients = [torch.autograd.grad(loss, inputs, allow_unused=True) for loss in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)  # clean vectors are float32
    assert targets[0][0] < 0 or (any(dropped) and not all(dropped))


def test_states_of_histories_are_generated_vectors(tmp_path: Path) -> None:
    settings = {**BACKBONE, "schedule": "sqrt", "guidance": 2.0}
    config, workspace, communicator = tiny_config(tmp_path, settings, **TRAIN), tiny_workspace(tmp_path), Communicator()
    objective = build_objective(config, workspace, communicator)
    table = build_table(config, workspace, objective.encoder, communicator, torch.device("cpu"))
    model = ScoringModel(objective, table, 4)
    vectors, backbone = torch.cat([model.item_vectors(), torch.zeros(1, HIDDEN_DIM)]), objective.backbone
    with torch.no_grad():
        conditions = backbone(vectors[HISTORIES], torch.tensor([2, 3]))

        def guided(noisy: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            without = backbone.denoiser(noisy, backbone.no_condition.expand(2, HIDDEN_DIM), steps)
            return 3 * backbone.denoiser(noisy, conditions, steps) - 2 * without

        start = torch.randn(HIDDEN_DIM, generator=torch.Generator().manual_seed(config.seed)).expand(2, HIDDEN_DIM)
        expected = Diffusion(remaining_signal("sqrt", 40, (1e-4, 0.02))).sample(guided, start, 10)
    torch.testing.assert_close(model.hidden_states(HISTORIES), expected)
    assert len(vectors) == NUM_ITEMS + 1
