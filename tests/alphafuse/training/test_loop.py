"""Training on 1, 2 and 3 ranks against plain torch in one process, and resuming."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import (
    HIDDEN_DIM,
    NUM_ITEMS,
    tiny_config,
    tiny_features,
    tiny_sequences,
    tiny_workspace,
)
from torch.nn import functional

from alphafuse.config import Config
from alphafuse.data.sampling.batches import BatchOrder
from alphafuse.data.sampling.item_mask import mask_items
from alphafuse.data.sampling.negative_draws import batch_negatives, shared_negatives, uniform_negatives
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import DataError
from alphafuse.evaluation.evaluator import validation_metrics
from alphafuse.events import Event, TrainingProgress, ValidationProgress
from alphafuse.items.encoders.base import ItemEncoder, build_encoder
from alphafuse.recommenders.base import build_backbone
from alphafuse.recommenders.settings import SASRecConfig
from alphafuse.storage.workspace import Workspace
from alphafuse.training import reporter
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer

STEPS = 3
INPUTS = {"test": "loop"}


class Killed(Exception):
    pass


def _trainer(config: Config, events: list[Any]) -> Any:
    workspace = Workspace(config.workspace)
    arguments = (config, workspace, INPUTS, Communicator(), torch.device("cpu"))
    return Trainer(*arguments, events.append)


def _run_steps(config: Config) -> tuple[list[float], dict[str, torch.Tensor], torch.Tensor]:
    """Losses of the first steps (this rank's shares), dense state and this rank's rows."""
    trainer = _trainer(config, [])
    losses = []
    for plan in itertools.islice(trainer.plans(), STEPS):
        losses.append(float(trainer.training_step(plan)))
    return losses, trainer.engine.state(), trainer.table.trainable


def _plain_torch(config: Config) -> tuple[list[float], dict[str, torch.Tensor], torch.Tensor]:
    """The same global batches in one process: full embedding matrix, autograd, Adam; rows by Adam where touched."""
    workspace = Workspace(config.workspace)
    torch.manual_seed(config.seed)
    encoder: ItemEncoder = build_encoder(config, workspace)
    backbone = build_backbone(config.model, config.seed)
    features = torch.from_numpy(tiny_features())
    rows = encoder.initial_rows(0, NUM_ITEMS, config.seed)
    first, second = torch.zeros_like(rows), torch.zeros_like(rows)
    adam = torch.optim.Adam(backbone.parameters(), lr=1e-2, weight_decay=config.train.weight_decay)
    windowing = Windowing.of(config.train, 4)
    samples = SampleStream(SequenceStore(workspace), windowing, config.train.shuffle_users, config.seed)
    order = BatchOrder(samples, config.train.batch_size, 1)
    loss_config, losses = config.train.loss, []
    for step, (batch,) in enumerate(list(order.epoch(0, 0, 0, 1))[:STEPS]):
        if config.train.masking is not None:
            batch = mask_items(batch, config.seed, step, config.train.masking)
        leaf = rows.clone().requires_grad_()
        pad = torch.zeros(leaf.shape[0], HIDDEN_DIM - leaf.shape[1])
        vectors = torch.cat([features + torch.cat([pad, leaf], 1), torch.zeros(1, HIDDEN_DIM)])  # row −1: padding
        hidden = backbone(vectors[torch.from_numpy(batch.histories)])
        touched = set(batch.histories.ravel()) | set(batch.targets.ravel())
        space = functional.normalize(vectors, dim=1) if loss_config.similarity == "cosine" else vectors
        terms = []
        for sample, position in zip(*np.nonzero(batch.targets >= 0), strict=True):
            target = int(batch.targets[sample, position])
            state = hidden[sample, position]
            state = functional.normalize(state, dim=0) if loss_config.similarity == "cosine" else state
            if loss_config.name == "softmax":
                others = list(range(NUM_ITEMS))
                touched |= set(others)
            elif loss_config.negatives == "in_batch":
                others = batch_negatives(config.seed, step, 6, batch.targets[batch.targets >= 0]).tolist()
            elif loss_config.negatives in ("shared", "shard_local"):
                others = shared_negatives(config.seed, step, 6, NUM_ITEMS).tolist()
            else:
                slot = sample * 4 + position if config.train.positions == "all" else sample
                others = uniform_negatives(config.seed, step, slot, np.array([target]), 6, NUM_ITEMS)[0].tolist()
            touched |= set(others)
            others = [item for item in others if item != target]
            logits = space[[target, *others]] @ state / loss_config.temperature
            if loss_config.name == "sampled_softmax":  # every negative stands for 1 / (6 q) items
                in_batch, number = loss_config.negatives == "in_batch", int((batch.targets >= 0).sum())
                drawn = 6 * (number - 1) / number if in_batch else 6  # the target itself was not drawn
                logits[1:] -= torch.log(drawn * torch.tensor([_probability(config, item) for item in others]))
            elif loss_config.negatives == "in_batch":
                logits[1:] -= torch.log(NUM_ITEMS * torch.tensor([_probability(config, item) for item in others]))
            if loss_config.name == "bce":
                terms.append(functional.softplus(-logits[0]) + functional.softplus(logits[1:]).mean())
            elif loss_config.name == "gbce":
                rate = 6 / (NUM_ITEMS - 1)
                beta = rate * (loss_config.calibration * (1 - 1 / rate) + 1 / rate)
                against = torch.log(torch.sigmoid(-logits[1:])).sum()  # 1 − σ(x), without the cancellation
                terms.append(-(beta * torch.log(torch.sigmoid(logits[0])) + against) / len(logits))
            else:
                terms.append(-functional.log_softmax(logits, dim=0)[0])
        loss = torch.stack(terms).mean()
        losses.append(float(loss.detach()))
        adam.zero_grad()
        loss.backward()
        adam.step()
        for row in touched - {-1}:
            gradient = leaf.grad[row] + config.train.weight_decay * rows[row]
            first[row] = 0.9 * first[row] + 0.1 * gradient
            second[row] = 0.999 * second[row] + 0.001 * gradient**2
            corrected = first[row] / (1 - 0.9 ** (step + 1))
            rows[row] -= (
                config.train.table_learning_rate * corrected / ((second[row] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            )
    return losses, {f"backbone.{name}": value.detach() for name, value in backbone.named_parameters()}, rows


def _probability(config: Config, item: int) -> float:
    """Probability with which a negative is drawn: by its training interactions for in-batch negatives, else uniform."""
    loss = config.train.loss
    if loss.negatives != "in_batch":
        return 1 / (NUM_ITEMS - 1 if loss.negatives == "uniform" else NUM_ITEMS)
    train = [other for user in tiny_sequences()[:18] for other in user]
    return train.count(item) / len(train)


VARIANTS: dict[str, dict[str, Any]] = {
    "shared": {"loss": {"name": "infonce", "num_negatives": 6}},
    "uniform": {"loss": {"name": "infonce", "negatives": "uniform", "num_negatives": 6}},
    "uniform, last position": {
        "loss": {"name": "infonce", "negatives": "uniform", "num_negatives": 6},
        "positions": "last",
    },
    "bce, dot": {"loss": {"name": "bce", "similarity": "dot", "num_negatives": 6, "temperature": 1.0}},
    "gbce, dot": {"loss": {"name": "gbce", "similarity": "dot", "num_negatives": 6, "temperature": 1.0}},
    "softmax": {"loss": {"name": "softmax"}},
    "shard-local": {"loss": {"name": "infonce", "negatives": "shard_local", "num_negatives": 6}},
    "in batch": {"loss": {"name": "infonce", "negatives": "in_batch", "num_negatives": 6}},
    "sampled softmax": {"loss": {"name": "sampled_softmax", "num_negatives": 6}},
    "sampled softmax, uniform": {"loss": {"name": "sampled_softmax", "negatives": "uniform", "num_negatives": 6}},
    "sampled softmax, shard-local": {
        "loss": {"name": "sampled_softmax", "negatives": "shard_local", "num_negatives": 6}
    },
    "sampled softmax, in batch": {"loss": {"name": "sampled_softmax", "negatives": "in_batch", "num_negatives": 6}},
    "sampled softmax, accumulated": {"accumulation": 2},
    "sampled softmax, masked": {"masking": 0.4},
    "shared, rows faster": {"loss": {"name": "infonce", "num_negatives": 6}, "table_learning_rate": 3e-2},
}


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(
    ("variant", "zero_stage"), [(name, 0) for name in VARIANTS] + [("shared", 1), ("shared", 2), ("softmax", 2)]
)
def test_steps_equal_plain_torch(tmp_path: Path, variant: str, zero_stage: int, world_size: int) -> None:
    config = tiny_config(tmp_path, deepspeed={"zero_stage": zero_stage}, **VARIANTS[variant])
    tiny_workspace(tmp_path)
    results = run_ranks(world_size, _run_steps, config)
    losses, dense, rows = _plain_torch(config)
    assert np.sum([own for own, _, _ in results], axis=0) == pytest.approx(losses, abs=1e-5)
    torch.testing.assert_close(torch.cat([own for _, _, own in results]), rows, rtol=0, atol=1e-5)
    for _, state, _ in results:
        for name, value in dense.items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-5)


def _train(config: Config, kill_at: int | None) -> tuple[list[float], dict[str, Any] | None]:
    """Train to the end, or raise `Killed` in the middle of step `kill_at`; the losses are rank 0's reports."""
    events: list[Any] = []
    trainer = _trainer(config, events)
    step = trainer.training_step

    def dying_step(plan: Any) -> Any:
        if plan.number == kill_at:
            raise Killed
        return step(plan)

    trainer.training_step = dying_step
    details = None
    with contextlib.suppress(Killed):
        details = trainer.run()
    return [event.loss for event in events if isinstance(event, TrainingProgress)], details


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2])
def test_resumed_training_repeats_the_undisturbed_one(tmp_path: Path, world_size: int) -> None:
    whole = tiny_config(tmp_path / "whole", checkpoint_steps=2, max_epochs=3)
    backbone = SASRecConfig(dropout=0.3)
    whole = whole.model_copy(update={"model": whole.model.model_copy(update={"backbone": backbone})})
    broken = whole.model_copy(update={"workspace": str(tmp_path / "broken")})
    for config in (whole, broken):
        tiny_workspace(Path(config.workspace))
    expected_losses, expected = run_ranks(world_size, _train, whole, None)[0]
    kill_at = 5
    before, _ = run_ranks(world_size, _train, broken, kill_at)[0]
    after, details = run_ranks(world_size, _train, broken, None)[0]
    assert len(before) == kill_at
    assert before == pytest.approx(expected_losses[:kill_at], abs=1e-6)
    assert after == pytest.approx(expected_losses[len(expected_losses) - len(after) :], abs=1e-6)
    assert len(after) == len(expected_losses) - 4  # the latest checkpoint before step 5 is that of step 4

    def without_time(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]

    assert without_time(details["history"]) == without_time(expected["history"])


def _continue_elsewhere(config: Config) -> list[float]:
    losses, _ = _train(config, None)
    return losses


@pytest.mark.distributed
def test_checkpoint_loads_on_another_world_size(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "a", checkpoint_steps=2, max_epochs=3)
    tiny_workspace(tmp_path / "a")
    alone = config.model_copy(update={"workspace": str(tmp_path / "b")})
    tiny_workspace(tmp_path / "b")
    expected, _ = run_ranks(1, _train, alone, None)[0]
    run_ranks(3, _train, config, 5)
    continued = run_ranks(2, _continue_elsewhere, config)[0]
    assert continued == pytest.approx(expected[4:], abs=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("wanted", [5, 10**6])
def test_validation_on_some_targets(tmp_path: Path, wanted: int) -> None:
    workspace = tiny_workspace(tmp_path)
    config = tiny_config(tmp_path, validation_targets=wanted, max_epochs=1)
    _, details = run_ranks(1, _train, config, None)[0]
    total = sum(len(items) - 1 for items in tiny_sequences()[18:21])
    chosen = np.arange(total)
    if wanted < total:
        chosen = np.sort(np.random.default_rng(config.seed).choice(total, wanted, replace=False))
    model, communicator = load_trained(config, workspace, Communicator()), Communicator()
    expected = validation_metrics(
        model, SequenceStore(workspace), "validation", config.evaluate, communicator, config.similarity, chosen
    )
    assert details is not None
    assert details["history"][0]["validation"] == pytest.approx(expected)


def _validation_reports(config: Config, seconds: float) -> list[tuple[int, int | None, str]]:
    reporter.VALIDATION_REPORT_SECONDS = seconds  # this function runs in a process of its own
    events: list[Event] = []
    _trainer(config, events).run()
    return [(e.done, e.total, e.unit) for e in events if isinstance(e, ValidationProgress)]


@pytest.mark.distributed
def test_a_long_validation_tells_that_it_goes_on(tmp_path: Path) -> None:
    reports = {}
    for seconds in (30.0, -1.0):
        tiny_workspace(tmp_path / str(seconds))
        config = tiny_config(tmp_path / str(seconds), max_epochs=1)
        reports[seconds] = run_ranks(1, _validation_reports, config, seconds)[0]
    assert reports[30.0] == []
    # The test users come behind the 21 users that train or validate.
    assert reports[-1.0][-1] == (21, len(tiny_sequences()), "users")


def test_no_training_without_validation(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    workspace = tiny_workspace(tmp_path, validation_users=0)
    with pytest.raises(DataError, match=r"no validation targets; check data\.split"):
        Trainer(config, workspace, INPUTS, Communicator(), torch.device("cpu"), [].append)
