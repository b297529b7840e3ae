"""Loss of a generating backbone: noise the targets' vectors, denoise, sum the errors.

Knows nothing of ranks: the noise depends on a target's place in the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from alphafuse.data.sampling.noise import target_noise
from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import Rows
from alphafuse.items.lookup_plan import PADDING
from alphafuse.recommenders.diffusion import add_noise
from alphafuse.recommenders.dreamrec import DreamRec
from alphafuse.training.objectives.alignment import alignment_loss
from alphafuse.training.objectives.dense_model import DenseModel
from alphafuse.training.objectives.step_input import StepInput

if TYPE_CHECKING:
    from alphafuse.data.sampling.batches import Batch


@dataclass(frozen=True)
class TargetDraws:
    """Random numbers of the targets of a micro-batch.

    Attributes:
        timesteps: int64 [targets], the timestep t of each.
        scales: float32 [2, targets], of the clean vector and of the noise at t.
        noise: float32 [targets, hidden_dim], standard normal.
        dropped: bool [targets], True where the condition is left out.
    """

    timesteps: torch.Tensor
    scales: torch.Tensor
    noise: torch.Tensor
    dropped: torch.Tensor


class DiffusionObjective(DenseModel):
    """Denoises the item vector of each target on the condition of its history (DreamRec, Yang et al. 2023).

    Args:
        seed: random seed of the run.
        temperature: temperature of the loss that aligns text and ID, where the encoder has one.
    """

    backbone: DreamRec

    def __init__(self, encoder: ItemEncoder, backbone: DreamRec, seed: int, temperature: float) -> None:
        super().__init__(encoder, backbone)
        self._seed = seed
        self._temperature = temperature

    def draw(self, number: int, batch: Batch) -> TargetDraws:
        """Draw timesteps, dropped conditions and noise. Every position of every sample has its draws, so that those of
        a target are the same on any rank."""
        chosen, backbone = (batch.targets != PADDING).ravel(), self.backbone
        first_slot, dim = batch.first_sample * batch.targets.shape[1], len(backbone.no_condition)
        timesteps, drop_rate = backbone.diffusion.timesteps, backbone.condition_dropout
        drawn = target_noise(self._seed, number, first_slot, chosen, dim, timesteps, drop_rate)
        steps = torch.from_numpy(drawn.timesteps)
        noise, dropped = torch.from_numpy(drawn.noise), torch.from_numpy(drawn.dropped)
        return TargetDraws(steps, backbone.diffusion.scales(steps), noise, dropped)

    def forward(self, rows: Rows, step: StepInput[TargetDraws], scored: None = None) -> torch.Tensor:
        """Squared error of the predicted x₀, its mean over the dimensions, summed over this rank's targets: a scalar.

        Args:
            rows: rows looked up for the step's items.
            scored: None, since a target is denoised without regard to other items.
        """
        item_vectors, others = self.gather(rows, step)
        clean, drawn = others[: len(step.predicted.places)].float(), step.draws  # [targets, hidden_dim]
        conditions = self.backbone.drop_conditions(self.target_states(item_vectors, step), drawn.dropped)
        noisy = add_noise(clean, drawn.scales, drawn.noise)
        denoised = self.backbone.denoiser(noisy, conditions, drawn.timesteps)
        error = (denoised - clean).square().mean(dim=1).sum()
        if self.encoder.alignment_weight:
            error = error + alignment_loss(self.encoder, rows, step, self._temperature)
        return error

    def hidden_states(self, rows: Rows, histories: torch.Tensor) -> torch.Tensor:
        """The item vectors that are generated for histories [queries, length]: [queries, hidden_dim]."""
        return self.backbone.generate(super().hidden_states(rows, histories))
