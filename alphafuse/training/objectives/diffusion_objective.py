"""Loss of a generating backbone: noise the targets' vectors, denoise, sum the errors.

Knows nothing of ranks: the noise depends on a target's place in the global batch.
"""

from __future__ import annotations

import numpy as np
import torch

from alphafuse.data.sampling.noise import TargetNoise, target_noise
from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.item_table import PADDING, Rows
from alphafuse.recommenders.dreamrec import DreamRec
from alphafuse.training.objectives.alignment import alignment_loss
from alphafuse.training.objectives.dense_model import DenseModel
from alphafuse.training.objectives.step_input import StepInput


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

    def forward(self, rows: Rows, step: StepInput, scored: None = None) -> torch.Tensor:
        """Squared error of the predicted x₀, its mean over the dimensions, summed over this rank's targets: a scalar.

        Args:
            rows: rows looked up for `step.items()`.
            scored: None, since a target is denoised without regard to other items.
        """
        item_vectors, targets, _ = self.gather(rows, step)
        predicted = step.targets != PADDING
        clean = targets[predicted.flatten()].float()  # [targets, hidden_dim]
        drawn = self._draw(step, predicted, clean.shape[1])
        timesteps, dropped, noise = (
            torch.from_numpy(array).to(clean.device) for array in (drawn.timesteps, drawn.dropped, drawn.noise)
        )
        conditions = self.backbone.drop_conditions(self.target_states(item_vectors, predicted), dropped)
        noisy = self.backbone.diffusion.add_noise(clean, timesteps, noise)
        denoised = self.backbone.denoiser(noisy, conditions, timesteps)
        error = (denoised - clean).square().mean(dim=1).sum()
        return error + alignment_loss(self.encoder, rows, step, self._temperature)

    def hidden_states(self, rows: Rows, histories: torch.Tensor) -> torch.Tensor:
        """The item vectors that are generated for histories [queries, length]: [queries, hidden_dim]."""
        return self.backbone.generate(super().hidden_states(rows, histories))

    def _draw(self, step: StepInput, predicted: torch.Tensor, dim: int) -> TargetNoise:
        """Draw timesteps, dropped conditions and noise. Every position of every sample has its draws, so that
        those of a target are the same on any rank."""
        chosen: np.ndarray = predicted.flatten().cpu().numpy()
        first_slot = step.first_sample * predicted.shape[1]
        timesteps, drop_rate = self.backbone.diffusion.timesteps, self.backbone.condition_dropout
        return target_noise(self._seed, step.number, first_slot, chosen, dim, timesteps, drop_rate)
