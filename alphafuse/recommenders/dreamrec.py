"""DreamRec: generates the vector of the next item by diffusion, guided by the history (Yang et al. 2023).

Plain torch: item vectors in, a condition per position out; then, from a condition, an item vector.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from alphafuse.recommenders.base import Backbone, BackboneContext
from alphafuse.recommenders.diffusion import Diffusion, remaining_signal
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.recommenders.settings import DreamRecConfig


class DreamRec(Backbone):
    """An encoder of the history gives the condition, a denoiser predicts the clean item vector from a noisy one.

    Args:
        history_encoder: encoder of histories, such as SASRec; its states are the conditions.
        hidden_dim: width of item vectors, given and generated, and of conditions.
        guidance: w; the condition's influence is strengthened to (1 + w) f(x, c, t) − w f(x, none, t).
        stride: sampling visits every `stride`-th step, and the first.
        seed: random seed of the noise that every sampling starts from.
        condition_dropout: share of the targets that training denoises without a condition, for the guidance.
    """

    settings_class = DreamRecConfig

    def __init__(
        self,
        history_encoder: nn.Module,
        hidden_dim: int,
        diffusion: Diffusion,
        guidance: float,
        stride: int,
        seed: int,
        condition_dropout: float,
    ) -> None:
        super().__init__()
        self.history_encoder = history_encoder
        self.no_condition = nn.Parameter(torch.randn(hidden_dim))
        self.denoiser = Denoiser(hidden_dim)
        self.diffusion = diffusion
        self.condition_dropout = condition_dropout
        self._guidance = guidance
        self._stride = stride
        self._start = torch.randn(hidden_dim, generator=torch.Generator().manual_seed(seed))

    @classmethod
    def build(cls, settings: DreamRecConfig, context: BackboneContext) -> DreamRec:
        """Build the backbone with SASRec as the encoder of histories.

        The item encoder wraps SASRec to read item vectors of several parts (`num_parts`); they are generated whole.
        """
        reader = context.encoder.wrap(SASRec.build(settings, context), context.hidden_dim)
        diffusion = Diffusion(remaining_signal(settings.schedule, settings.timesteps, settings.beta_range))
        item_dim = context.encoder.num_parts * context.hidden_dim
        sampling = (settings.guidance, settings.sampling_stride, context.seed)
        return cls(reader, item_dim, diffusion, *sampling, settings.condition_dropout)

    def forward(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Conditions of all positions, or at one of each history: shapes as SASRec's states."""
        return self.history_encoder(item_vectors, at)

    def drop_conditions(self, conditions: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
        """Conditions [batch, hidden_dim], replaced by the learned one for "none" where `dropped` [batch] is true."""
        return torch.where(dropped[:, None], self.no_condition.to(conditions), conditions)

    @torch.no_grad()
    def generate(self, conditions: torch.Tensor) -> torch.Tensor:
        """Item vectors for conditions [queries, hidden_dim], the same shape, float32.

        Every query starts from one and the same noise, so what it gets depends neither on the queries beside it nor
        on the ranks that they are divided over.
        """
        queries = conditions.shape[0]  # `len` would make a constant of it where a graph is traced
        none = self.drop_conditions(conditions, torch.ones(queries, dtype=torch.bool, device=conditions.device))

        def guided(noisy: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            conditional = self.denoiser(noisy, conditions, steps)
            if not self._guidance:
                return conditional
            return conditional + self._guidance * (conditional - self.denoiser(noisy, none, steps))

        start = self._start.to(conditions.device).expand(conditions.shape)
        return self.diffusion.sample(guided, start, self._stride)


class Denoiser(nn.Module):
    """Predicts x₀ from x_t, the condition and t by a perceptron over the three side by side."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self._hidden_dim = hidden_dim
        self.step = nn.Sequential(
            nn.Linear(hidden_dim, 2 * hidden_dim), nn.GELU(), nn.Linear(2 * hidden_dim, hidden_dim)
        )
        self.output = nn.Sequential(
            nn.Linear(3 * hidden_dim, 2 * hidden_dim), nn.GELU(), nn.Linear(2 * hidden_dim, hidden_dim)
        )

    def forward(self, noisy: torch.Tensor, conditions: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """noisy, conditions [batch, hidden_dim], steps int64 [batch] or [1] → [batch, hidden_dim].

        Computes in the precision of the weights; the result has that of `noisy`.
        """
        precision = next(self.parameters()).dtype
        step = self.step(sinusoidal_embedding(steps, self._hidden_dim).to(precision))
        parts = (noisy.to(precision), conditions.to(precision), step.expand(noisy.shape[0], -1))
        return self.output(torch.cat(parts, dim=1)).to(noisy.dtype)


def sinusoidal_embedding(steps: torch.Tensor, dim: int) -> torch.Tensor:
    """Sines, then cosines, of int64 [batch] at wavelengths from 2π to 20000π: float32 [batch, dim] (Vaswani et al.
    2017, §3.5). The last column of an odd `dim` is zero."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=steps.device) * (-math.log(10_000) / max(half - 1, 1)))
    angles = steps[:, None] * frequencies  # [batch, half]
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, dim % 2))
