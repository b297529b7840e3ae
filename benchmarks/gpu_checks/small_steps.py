"""Training steps on a small catalog, of every encoder, backbone and loss, without DeepSpeed and without Ray.

The catalog is the one of the tests, `tests/support`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from alphafuse.config import Config, parse_config
from alphafuse.config.registry import BACKBONES, ENCODERS
from alphafuse.data.popularity import load_popularity, load_trained_items
from alphafuse.data.sampling.batches import BatchOrder
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.item_table import ItemTable
from alphafuse.items.table_building import build_table
from alphafuse.storage.workspace import Workspace
from alphafuse.training.negative_sampler import NegativeSampler, needs_popularity
from alphafuse.training.objectives.objective_building import build_objective
from alphafuse.training.schedule import LearningRates
from alphafuse.training.step import TrainingStep
from alphafuse.training.step_plan import StepPlan, StepPlanner

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from support.workspaces.tiny_workspace import HIDDEN_DIM, tiny_config, tiny_workspace

RATES = LearningRates(1e-3, 1e-3)
SHARED = ("shared", "shard_local", "uniform", "in_batch")
LOSSES: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    **{
        f"{name}, {kind}": {"name": name, "negatives": kind}
        for name in ("infonce", "sampled_softmax")
        for kind in SHARED
    },
    **{
        f"{name}, {kind}": {"name": name, "negatives": kind}
        for name in ("bce", "gbce")
        for kind in ("shared", "uniform")
    },
}
DIFFUSION = {"name": "diffusion", "similarity": "dot"}
BACKBONE_SETTINGS: dict[str, dict[str, Any]] = {
    "gru4rec": {"num_layers": 2},
    "dreamrec": {"timesteps": 40, "beta_range": [0.01, 0.4], "sampling_stride": 20},
}
WHITENED_DIM = 6
"""Width of WhitenRec's model, whose vectors of texts are whitened as a whole."""


def small_config(
    backbone: str = "sasrec", encoder: str = "alphafuse", loss: dict[str, Any] | None = None, **train: Any
) -> Config:
    """A configuration for the small catalog, without dropout; `train` are settings of its section."""
    settings = {"name": backbone, **BACKBONE_SETTINGS.get(backbone, {})}
    if backbone != "dreamrec":
        settings["dropout"] = 0.0
    folder = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    tiny_workspace(folder)
    chosen = {"num_negatives": 6, **(loss or {})}
    tree = tiny_config(folder, settings, loss=chosen, **train).model_dump(mode="json")
    tree["decompose"]["directions"] = HIDDEN_DIM
    tree["model"]["encoder"] = {"name": encoder}
    tree["model"]["hidden_dim"] = WHITENED_DIM if encoder == "whitenrec" else HIDDEN_DIM
    return parse_config(tree)


CONFIGURATIONS: dict[str, Callable[[], Config]] = {
    **{name: partial(small_config, loss=loss) for name, loss in LOSSES.items()},
    **{encoder: partial(small_config, encoder=encoder) for encoder in ENCODERS.built_in},
    **{
        backbone: partial(small_config, backbone, loss=DIFFUSION if backbone == "dreamrec" else {})
        for backbone in BACKBONES.built_in
    },
}
"""Every loss, every encoder and every backbone, each beside the default of the others."""


class FusedAdam:
    """Stands for DeepSpeed's engine on one rank, which has the same optimizer: fused Adam on the dense weights."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._adam = torch.optim.Adam(module.parameters(), fused=True)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self, learning_rate: float, measured: bool = True) -> None:
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()
        self._adam.zero_grad()


class SmallTraining:
    """Steps of a configuration on a device, by one rank, with fused Adam on the dense weights.

    Attributes:
        table: the item table.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self._config, workspace, communicator = config, Workspace(config.workspace), Communicator()
        objective = build_objective(config, workspace, communicator).to(device)
        self.table: ItemTable = build_table(config, workspace, objective.encoder, communicator, device)
        popularity = load_popularity(workspace) if needs_popularity(config.train.loss) else None
        trained, aligns = load_trained_items(workspace), objective.encoder.alignment_weight > 0
        arguments = (config.train, config.seed, self.table.num_items, communicator, popularity, trained, aligns)
        sampler = NegativeSampler(*arguments)
        self._planner = StepPlanner(config.train, self.table, sampler, objective.draw, communicator, device)
        engine: Any = FusedAdam(objective)
        self.step = TrainingStep(config.train, config.seed, self.table, engine, communicator)
        windowing = Windowing.of(config.train, config.model.history_length)
        samples = SampleStream(SequenceStore(workspace), windowing, config.train.shuffle_users, config.seed)
        self._order = BatchOrder(samples, config.train.batch_size, config.train.accumulation)

    def plans(self) -> Iterator[StepPlan]:
        """Yield the plans of an epoch."""
        return self._planner.plans(self._order.epoch(0, 0, 0, 1), 0)

    def losses(self) -> np.ndarray:
        """Train an epoch; returns the losses of its steps, float64 [steps]."""
        return torch.stack([self.step(plan, RATES) for plan in self.plans()]).cpu().numpy()
