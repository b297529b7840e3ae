"""Diffusion of vectors: noise schedules, the forward process, and sampling by DDIM. Knows nothing of what is generated.

x_t = √ᾱ_t x₀ + √(1 − ᾱ_t) ε with ε ~ N(0, I) (Ho et al. 2020, eq. 4); the steps are t = 0 … T − 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from alphafuse.recommenders.settings import Schedule

LARGEST_BETA = 0.999
"""Keeps some signal in the last steps (Nichol & Dhariwal 2021, §3.2)."""


def remaining_signal(schedule: Schedule, timesteps: int, beta_range: tuple[float, float]) -> torch.Tensor:
    """ᾱ_t = Π_{s ≤ t} (1 − β_s), the share of the variance that is still signal: float64 [timesteps], falling.

    Args:
        schedule: `linear`: β rises evenly over `beta_range` (Ho et al. 2020). The others say what is left after the
            share u = (t + 1) / T of the way: `cosine`: cos²(π/2 · (u + 0.008) / 1.008) (Nichol & Dhariwal 2021, eq.
            17); `exp`: exp(−0.1u − 4.95u²), the variance-preserving process with rates from 0.1 to 10 (Song et al.
            2021, eq. 33); `sqrt`: 1 − √(u + 0.0001) (Li et al. 2022, Diffusion-LM).
        beta_range: β of the first and the last step, for `linear`.
    """
    way = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    match schedule:
        case "linear":
            return (1 - torch.linspace(*beta_range, timesteps, dtype=torch.float64)).cumprod(0)
        case "cosine":
            left = torch.cos((way + 0.008) / 1.008 * math.pi / 2).square()
        case "exp":
            left = torch.exp(-0.1 * way - 4.95 * way.square())
        case "sqrt":
            left = 1 - torch.sqrt(way + 1e-4)
    beta = (1 - left[1:] / left[:-1]).clamp(max=LARGEST_BETA)
    return (1 - beta).cumprod(0)


def add_noise(clean: torch.Tensor, scales: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return x_t for clean vectors x₀ [batch, dim] and noise [batch, dim]; `scales` [2, batch], as `Diffusion.scales`
    gives them for t."""
    signal_scale, noise_scale = scales[:, :, None]  # [batch, 1] each
    return signal_scale * clean + noise_scale * noise


class Diffusion:
    """The forward process of a schedule, and sampling, which reverses it.

    Args:
        signal: ᾱ, as `remaining_signal` gives it.
    """

    def __init__(self, signal: torch.Tensor) -> None:
        self.timesteps = len(signal)
        self._scales = torch.stack([signal.sqrt(), (1 - signal).sqrt()])  # [2, timesteps], of signal and noise
        self._scale_pairs: list[list[float]] = self._scales.T.tolist()

    def scales(self, steps: torch.Tensor) -> torch.Tensor:
        """√ᾱ_t and √(1 − ᾱ_t) for steps t, int64 [batch] on the CPU: float32 [2, batch]."""
        return self._scales[:, steps].float()

    def sample(
        self, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, stride: int
    ) -> torch.Tensor:
        """Turn noise [batch, dim] into clean vectors by DDIM without fresh noise (Song et al. 2021, eq. 12, σ = 0).

        Visits every `stride`-th step from the last one down, and the first, where next to no noise is left: what is
        predicted there is the sample.

        Args:
            predict: maps (x_t [batch, dim], t int64 [1], the same for all) to the prediction of x₀ [batch, dim].
        """
        current, clean = noise, noise
        visited = [*range(self.timesteps - 1, 0, -stride), 0]
        for step, following in zip(visited, [*visited[1:], None], strict=True):
            clean = predict(current, torch.tensor([step], device=current.device))
            if following is not None:
                (signal, noise_scale), (next_signal, next_noise) = self._scale_pairs[step], self._scale_pairs[following]
                implied = (current - signal * clean) / noise_scale
                current = next_signal * clean + next_noise * implied
        return clean
