"""The dense engine against a plain torch Adam in one process, over ranks, ZeRO stages and accumulation."""

from __future__ import annotations

import copy

import pytest
import torch
from support.processes.multi_process import run_ranks
from torch import nn

from alphafuse.config import DeepSpeedConfig, TrainConfig

STEPS = 4
SAMPLES = 12
RATE = 1e-2


def _module() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def _batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(SAMPLES, 6, generator=generator) for _ in range(2 * STEPS)]


def _config(stage: int, accumulation: int = 1, max_grad_norm: float | None = 0.05) -> TrainConfig:
    return TrainConfig(
        batch_size=SAMPLES,
        accumulation=accumulation,
        learning_rate=RATE,
        weight_decay=1e-2,
        max_grad_norm=max_grad_norm,
        deepspeed=DeepSpeedConfig(zero_stage=stage),
    )


def _plain_torch(max_grad_norm: float | None, steps: int) -> dict[str, torch.Tensor]:
    module = _module()
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, weight_decay=1e-2)
    for batch in _batches()[:steps]:
        optimizer.zero_grad()
        module(batch).square().sum(dim=1).mean().backward()
        if max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), max_grad_norm)
        optimizer.step()
    return {name: value.detach() for name, value in module.state_dict().items()}


def _train(config: TrainConfig, batches: list[torch.Tensor], state: dict[str, torch.Tensor] | None = None) -> dict:
    from alphafuse.distributed.communicator import Communicator
    from alphafuse.training.engine import DenseEngine

    communicator = Communicator()
    engine = DenseEngine(_module(), config, communicator.world_size)
    if state is not None:
        engine.load_state(state)
    parts = communicator.world_size * config.accumulation
    for batch in batches:
        for micro in range(config.accumulation):
            part = batch.chunk(parts)[micro * communicator.world_size + communicator.rank]
            engine.backward(engine.module(part).square().sum(dim=1).sum() / (SAMPLES / parts))
            engine.step(RATE)
    return engine.state()


def _train_first_half(config: TrainConfig) -> dict:
    return _train(config, _batches()[:STEPS])


def _train_second_half(config: TrainConfig, state: dict) -> dict:
    return _train(config, _batches()[STEPS:], state)


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_weights_equal_plain_adam_and_resume_on_another_world_size(world_size: int, stage: int) -> None:
    config = _config(stage, accumulation=2 if world_size == 2 else 1)
    states = run_ranks(world_size, _train_first_half, config)
    expected = _plain_torch(config.max_grad_norm, STEPS)
    for state in states:
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-6)

    other = _config((stage + 1) % 3)
    resumed = run_ranks(world_size % 3 + 1, _train_second_half, other, copy.deepcopy(states[0]))
    for name, value in _plain_torch(config.max_grad_norm, 2 * STEPS).items():
        torch.testing.assert_close(resumed[0][name], value, rtol=0, atol=1e-6)
