"""The loss of DreamRec against loops over the targets in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_workspace import HIDDEN_DIM, NUM_ITEMS, tiny_config, tiny_workspace
from torch import nn

from alphafuse.collectives import Communicator
from alphafuse.data.noise import target_noise
from alphafuse.errors import ConfigError
from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.recommenders.diffusion import remaining_signal
from alphafuse.training.model import ScoringModel, build_objective, build_table
from alphafuse.training.step_input import StepInput

BACKBONE = {"name": "dreamrec", "dropout": 0.0, "timesteps": 40, "sampling_stride": 10, "condition_dropout": 0.4}
TRAIN: dict[str, Any] = {"loss": {"name": "diffusion", "similarity": "dot"}}
HISTORIES = torch.tensor([[3, 9, 4, -1], [29, 0, 7, 7]])


@pytest.mark.parametrize(
    "targets", [[[9, 4, 8, -1], [-1, -1, 7, 2]], [[-1, -1, 8, -1], [-1, -1, -1, 2]]], ids=["all", "last"]
)
@torch.no_grad()
def test_loss_equals_loops_over_the_targets(tmp_path: Path, targets: list[list[int]]) -> None:
    config, workspace, communicator = tiny_config(tmp_path, BACKBONE, **TRAIN), tiny_workspace(tmp_path), Communicator()
    objective = build_objective(config, workspace, communicator).double()
    table = build_table(config, workspace, objective.encoder, communicator, torch.device("cpu"))
    vectors = ScoringModel(objective, table, 4).item_vectors().double()
    first_sample, number = 5, 11
    empty = torch.zeros(0, dtype=torch.int64)
    step = StepInput(HISTORIES, torch.tensor(targets), empty, 0.0, number, first_sample)
    found = objective(table.lookup(step.items()), step, None)

    padded = torch.cat([vectors, torch.zeros(1, HIDDEN_DIM)])
    backbone: Any = objective.backbone
    conditions = backbone.history_encoder(padded[HISTORIES])
    signal = remaining_signal("linear", 40, (1e-4, 0.02)).tolist()
    expected, dropped = 0.0, []
    for sample in range(2):
        for position, target in enumerate(targets[sample]):
            if target >= 0:
                slot = (first_sample + sample) * 4 + position
                drawn = target_noise(config.seed, number, slot, np.ones(1, bool), HIDDEN_DIM, 40, 0.4)
                t, noise = int(drawn.timesteps[0]), torch.from_numpy(drawn.noise[0]).double()
                noisy = signal[t] ** 0.5 * vectors[target] + (1 - signal[t]) ** 0.5 * noise
                condition = backbone.no_condition if drawn.dropped[0] else conditions[sample, position]
                clean = backbone.denoiser(noisy[None], condition[None], torch.tensor([t]))[0]
                expected += float((clean - vectors[target]).square().sum()) / HIDDEN_DIM
                dropped.append(bool(drawn.dropped[0]))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert targets[0][0] < 0 or (any(dropped) and not all(dropped))


def test_states_of_histories_are_generated_vectors(tmp_path: Path) -> None:
    config, workspace, communicator = tiny_config(tmp_path, BACKBONE, **TRAIN), tiny_workspace(tmp_path), Communicator()
    objective = build_objective(config, workspace, communicator)
    table = build_table(config, workspace, objective.encoder, communicator, torch.device("cpu"))
    model = ScoringModel(objective, table, 4)
    vectors, backbone = torch.cat([model.item_vectors(), torch.zeros(1, HIDDEN_DIM)]), objective.backbone
    with torch.no_grad():
        conditions = backbone(vectors[HISTORIES], torch.tensor([2, 3]))
    torch.testing.assert_close(model.hidden_states(HISTORIES), backbone.generate(conditions))
    assert len(vectors) == NUM_ITEMS + 1


def test_encoders_that_wrap_the_backbone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AlphaFuseEncoder, "wrap", lambda self, backbone: nn.Sequential(backbone))
    with pytest.raises(ConfigError, match=r"takes no encoder that .* \(model\.encoder\.name is `alphafuse`\)"):
        build_objective(tiny_config(tmp_path, BACKBONE, **TRAIN), tiny_workspace(tmp_path), Communicator())
