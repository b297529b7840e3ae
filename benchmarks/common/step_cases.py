"""The cases that `step_time` times: our training step, a plain torch model, and table lookups here and in TorchRec.

Every case is built for a number of items on the ranks of the process group, and then called once per step with the
item indices of this rank's batch. Vectors are random: what is measured does not depend on their values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.samples import PADDING
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.item_table import ItemTable
from alphafuse.items.lookup_plan import plan_update
from alphafuse.items.row_adam import RowAdam
from alphafuse.losses.sampled import infonce
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.training.engine import DenseEngine
from alphafuse.training.negative_sampler import NegativeSampler
from alphafuse.training.objectives.scoring_objective import ScoringObjective
from alphafuse.training.schedule import LearningRates
from alphafuse.training.step import TrainingStep
from alphafuse.training.step_plan import StepPlanner

HIDDEN_DIM, NULL_DIM, HISTORY, BATCH, NEGATIVES = 128, 64, 10, 256, 64
TEMPERATURE = 0.07
LOSSES: dict[str, dict[str, Any]] = {
    "infonce, 64 uniform per target": {"name": "infonce", "negatives": "uniform", "num_negatives": NEGATIVES},
    "sampled softmax, 1,024 shared": {"name": "sampled_softmax", "negatives": "shared", "num_negatives": 1024},
    "sampled softmax, 1,024 shard-local": {
        "name": "sampled_softmax",
        "negatives": "shard_local",
        "num_negatives": 1024,
    },
    "softmax": {"name": "softmax"},
}


@dataclass(frozen=True)
class StepItems:
    """Item indices of this rank's batch in one step: histories int64 [batch, length], targets int64 [batch]."""

    histories: np.ndarray
    targets: np.ndarray


Case = Callable[[StepItems, int], None]


def draw_items(num_items: int, rank: int, steps: int, rows: int = BATCH) -> list[StepItems]:
    """Batches of `steps` steps; popularity falls as 1 / rank (Zipf), popular items are spread over the table: each lies
    a golden section further on than the one before it."""
    generator = np.random.default_rng([num_items, rank])
    drawn = np.exp(generator.random((steps, rows, HISTORY + 1)) * np.log(num_items)).astype(np.int64) - 1
    stride = next(stride for stride in range(int(0.618 * num_items), num_items) if math.gcd(stride, num_items) == 1)
    items = drawn * stride % num_items
    return [StepItems(step[:, :HISTORY], step[:, HISTORY]) for step in items]


class OurStep:
    """The training step of this project: item table, DeepSpeed engine, `loss` of the configuration.

    Attributes:
        table, engine: what the step trains.
    """

    def __init__(
        self,
        loss: dict[str, Any],
        num_items: int,
        positions: str = "last",
        communicator: Communicator | None = None,
    ) -> None:
        config = TrainConfig.model_validate({"positions": positions, "batch_size": BATCH, "loss": loss})
        communicator = communicator or Communicator()
        torch.manual_seed(0)
        encoder = AlphaFuseEncoder(HIDDEN_DIM, NULL_DIM, "add", "zeros")
        backbone = SASRec(HIDDEN_DIM, HISTORY, 1, 1, 0.1)
        objective = ScoringObjective(encoder, backbone, config.loss, num_items, communicator)
        self.table = table = random_table(num_items, HIDDEN_DIM, communicator)
        self.engine = engine = DenseEngine(objective, config, communicator.world_size)
        sampler = NegativeSampler(config, 0, num_items, communicator, None, None, False)
        self._planner = StepPlanner(
            config, table, sampler, objective.draw, communicator.apart("planning"), torch.device("cpu")
        )
        self._step = TrainingStep(config, 0, table, engine, communicator)
        self._rates = LearningRates(config.learning_rate, config.table_learning_rate)
        self._first = communicator.rank * BATCH
        self._positions = positions

    def __call__(self, items: StepItems, step: int) -> None:
        targets = np.full_like(items.histories, PADDING)
        if self._positions == "all":
            targets[:, :-1] = items.histories[:, 1:]
        targets[:, -1] = items.targets
        batch = Batch(items.histories, targets, self._first)
        self._step(self._planner([batch], step), self._rates)


class PlainStep:
    """Step of reference implementations: `nn.Embedding` over all items and Adam on all of its rows; in a group of
    several ranks under DistributedDataParallel."""

    def __init__(self, num_items: int) -> None:
        torch.manual_seed(0)
        self._model: nn.Module = _PlainModel(num_items)
        if dist.get_world_size() > 1:
            self._model = DistributedDataParallel(self._model)
        self._optimizer = torch.optim.Adam(
            [parameter for parameter in self._model.parameters() if parameter.requires_grad], lr=1e-3, weight_decay=1e-6
        )
        self._num_items = num_items

    def __call__(self, items: StepItems, step: int) -> None:
        negatives = torch.randint(self._num_items, (BATCH, NEGATIVES))
        loss = self._model(torch.from_numpy(items.histories), torch.from_numpy(items.targets), negatives)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


class _PlainModel(nn.Module):
    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.ids = nn.Embedding.from_pretrained(torch.zeros(num_items, NULL_DIM), freeze=False)
        self.features = nn.Embedding.from_pretrained(torch.rand(num_items, HIDDEN_DIM), freeze=True)
        self.backbone = SASRec(HIDDEN_DIM, HISTORY, 1, 1, 0.1)

    def forward(self, histories: torch.Tensor, targets: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        hidden = self.backbone(self._vectors(histories), torch.full((len(histories),), HISTORY - 1))
        hidden = nn.functional.normalize(hidden, dim=-1)  # [batch, hidden_dim]
        positive = (nn.functional.normalize(self._vectors(targets), dim=-1) * hidden).sum(dim=1)
        negative = (nn.functional.normalize(self._vectors(negatives), dim=-1) @ hidden[:, :, None]).squeeze(2)
        return infonce(positive / TEMPERATURE, negative / TEMPERATURE) / len(histories)

    def _vectors(self, items: torch.Tensor) -> torch.Tensor:
        return self.features(items) + nn.functional.pad(self.ids(items), (HIDDEN_DIM - NULL_DIM, 0))


class OurLookup:
    """Lookup, gradient exchange and row-sparse Adam alone: no features, no model."""

    def __init__(self, num_items: int) -> None:
        self._table = random_table(num_items, 0, Communicator())
        self._gradient = torch.rand(BATCH * (HISTORY + 1 + NEGATIVES), NULL_DIM)

    def __call__(self, items: StepItems, step: int) -> None:
        plan = self._table.plan(_lookup_items(items, step, self._table.num_items).numpy())
        rows = self._table.lookup(plan)
        rows.gather(rows.trainable).backward(self._gradient)
        self._table.collect_gradient(rows)
        self._table.update(plan_update([plan.requested]), 1e-3)


class TorchRecLookup:
    """The same lookups in TorchRec: row-wise sharding, fused row-wise Adagrad (on CPUs it has no fused Adam)."""

    def __init__(self, num_items: int) -> None:
        from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.model_parallel import DistributedModelParallel
        from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
        from torchrec.distributed.types import ShardingEnv, ShardingType
        from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
        from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

        table = EmbeddingConfig(
            name="catalog", embedding_dim=NULL_DIM, num_embeddings=num_items, feature_names=["item"]
        )
        collection = EmbeddingCollection(tables=[table], device=torch.device("meta"))
        apply_optimizer_in_backward(RowWiseAdagrad, collection.parameters(), {"lr": 1e-3})
        group = dist.group.WORLD
        sharders = [EmbeddingCollectionSharder()]
        planner = EmbeddingShardingPlanner(
            topology=Topology(world_size=dist.get_world_size(), compute_device="cpu"),
            constraints={"catalog": ParameterConstraints(sharding_types=[ShardingType.ROW_WISE.value])},
        )
        self._model = DistributedModelParallel(
            collection,
            env=ShardingEnv.from_process_group(group),
            device=torch.device("cpu"),
            plan=planner.collective_plan(collection, sharders, group),
            sharders=sharders,
        )
        self._num_items = num_items
        self._jagged = KeyedJaggedTensor
        self._gradient = torch.rand(BATCH * (HISTORY + 1 + NEGATIVES), NULL_DIM)

    def __call__(self, items: StepItems, step: int) -> None:
        wanted = _lookup_items(items, step, self._num_items)
        lengths = torch.ones(len(wanted), dtype=torch.int64)
        result = self._model(self._jagged(keys=["item"], values=wanted, lengths=lengths)).wait()
        result["item"].values().backward(self._gradient)  # the fused optimizer updates in the backward pass


def random_table(num_items: int, feature_dim: int, communicator: Communicator) -> ItemTable:
    """This rank's part of a table with `NULL_DIM` trainable columns."""
    table = ItemTable(num_items, feature_dim, NULL_DIM, RowAdam(weight_decay=1e-6), communicator)
    table.features.uniform_()
    return table


def _lookup_items(items: StepItems, step: int, num_items: int) -> torch.Tensor:
    """Histories, targets and uniform negatives, flat."""
    generator = torch.Generator().manual_seed(step * 64 + dist.get_rank())
    negatives = torch.randint(num_items, (BATCH * NEGATIVES,), generator=generator)
    return torch.cat([torch.from_numpy(items.histories).flatten(), torch.from_numpy(items.targets), negatives])
