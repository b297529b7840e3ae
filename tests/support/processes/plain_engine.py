"""Replaces DeepSpeed in tests on devices that it does not know: the same calls, plain torch, one rank's gradients."""

from __future__ import annotations

import torch
from torch import nn

from alphafuse.config import TrainConfig
from alphafuse.training.engine import MOMENTS


class PlainEngine:
    """Adam on the parameters of `module`; its ranks do not average their gradients. See `DenseEngine`."""

    def __init__(self, module: nn.Module, config: TrainConfig, world_size: int) -> None:
        self.module = module
        self._adam = torch.optim.Adam(module.parameters(), lr=config.learning_rate, foreach=False)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self, learning_rate: float, measured: bool = True) -> None:
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()
        self._adam.zero_grad()

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.module.named_parameters()}

    def moments(self) -> dict[str, torch.Tensor]:
        moments = {}
        for name, parameter in self.module.named_parameters():
            for moment in MOMENTS:
                value = self._adam.state.get(parameter, {}).get(moment, torch.zeros_like(parameter))
                moments[f"{name}.{moment}"] = value.cpu().clone()
        return moments

    def state(self) -> dict[str, torch.Tensor]:
        return {**self.weights(), **self.moments()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(state[name])
