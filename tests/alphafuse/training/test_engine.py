"""The dense engine against a plain torch Adam in one process, over ranks, ZeRO stages and accumulation."""

from __future__ import annotations

import copy
from unittest.mock import patch

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


def _config(stage: int, accumulation: int = 1, max_grad_norm: float | None = 0.05, bf16: bool = False) -> TrainConfig:
    return TrainConfig(
        batch_size=SAMPLES,
        accumulation=accumulation,
        learning_rate=RATE,
        weight_decay=1e-2,
        max_grad_norm=max_grad_norm,
        deepspeed=DeepSpeedConfig(zero_stage=stage, bf16=bf16),
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
            part = part.to(next(engine.module.parameters()).dtype)
            engine.backward(engine.module(part).float().square().sum(dim=1).sum() / (SAMPLES / parts))
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


def _plain_bfloat16(parts: int, max_grad_norm: float, steps: int) -> dict[str, torch.Tensor]:
    """Forward and backward of each part of a batch in bfloat16; everything after it in float32."""
    module = _module().bfloat16()
    master = [weight.detach().float().requires_grad_() for weight in module.parameters()]
    optimizer = torch.optim.Adam(master, lr=RATE, weight_decay=1e-2)
    for batch in _batches()[:steps]:
        for weight in master:
            weight.grad = torch.zeros_like(weight)
        for part in batch.chunk(parts):
            module.zero_grad()
            (module(part.bfloat16()).float().square().sum() / (SAMPLES / parts)).backward()
            for weight, rounded in zip(master, module.parameters(), strict=True):
                weight.grad += rounded.grad.float() / parts
        torch.nn.utils.clip_grad_norm_(master, max_grad_norm)
        optimizer.step()
        with torch.no_grad():
            for weight, rounded in zip(master, module.parameters(), strict=True):
                rounded.copy_(weight)
    return {name: weight.detach() for (name, _), weight in zip(module.named_parameters(), master, strict=True)}


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("stage", [1, 2])
def test_gradients_of_bfloat16_are_summed_in_float32(stage: int, world_size: int) -> None:
    """Sums of ranks and micro-batches in bfloat16 would be wrong by some 1e-3 of them."""
    config = _config(stage, accumulation=2, bf16=True)
    states = run_ranks(world_size, _train_first_half, config)
    for name, value in _plain_bfloat16(2 * world_size, 0.05, STEPS).items():
        for state in states:
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-6)
    resumed = run_ranks(3 - world_size, _train_second_half, _config(3 - stage, 2, bf16=True), copy.deepcopy(states[0]))
    assert float(resumed[0]["adam_steps"]) == 2 * STEPS


def _train_fused(config: TrainConfig, first: int, last: int, state: dict | None) -> dict:
    """Train by the kernel that a GPU gets, which counts the steps itself."""
    adam = torch.optim.Adam
    with patch("torch.optim.Adam", lambda weights, **settings: adam(weights, **{**settings, "fused": True})):
        return _train(config, _batches()[first:last], state)


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_fused_adam_resumes_with_its_count_of_steps(stage: int) -> None:
    config = _config(stage)
    (whole, *_), (half, *_) = (run_ranks(2, _train_fused, config, 0, end, None) for end in (2 * STEPS, STEPS))
    assert (half["adam_steps"], half["adam_steps"].dtype) == (STEPS, torch.float32)
    (resumed, *_) = run_ranks(2, _train_fused, config, STEPS, 2 * STEPS, half)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    for name, value in _plain_torch(config.max_grad_norm, 2 * STEPS).items():
        torch.testing.assert_close(whole[name], value, rtol=0, atol=1e-6)
