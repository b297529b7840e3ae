"""Negatives: the items that a step's targets are compared with, and how much each of them weighs.

Draws depend on the seed, the step and a place in the global batch, so they are the same for any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from alphafuse.config import LossConfig, TrainConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.negative_draws import batch_negatives, shared_negatives, uniform_negatives
from alphafuse.data.sampling.samples import PADDING
from alphafuse.distributed.communicator import Communicator
from alphafuse.losses.sampled import log_weights


@dataclass(frozen=True)
class Negatives:
    """Negatives of one micro-batch of one rank.

    Attributes:
        items: int64 [count], for all targets; or [targets, count]; [0] where none are drawn.
        log_weights: added to their logits: a number or [count].
    """

    items: np.ndarray
    log_weights: torch.Tensor | float


def needs_popularity(config: LossConfig) -> bool:
    """Tell whether the loss draws items in proportion to their popularity."""
    return config.samples_negatives and config.negatives == "in_batch"


class NegativeSampler:
    """Draws the negatives that the configuration asks for.

    Args:
        popularity: [items], training interactions of each, where the negatives are drawn by it (`needs_popularity`).
        trained: int64, ascending, the items that training may know of; None: all.
        aligns: True where the encoder aligns text and ID against the negatives. Then they are drawn even for
            losses that need none, as for `shared`.

    Attributes:
        trained, aligns: as given.
    """

    def __init__(
        self,
        config: TrainConfig,
        seed: int,
        num_items: int,
        communicator: Communicator,
        popularity: np.ndarray | None,
        trained: np.ndarray | None,
        aligns: bool,
    ) -> None:
        self._config = config.loss
        self._positions = config.positions
        self._seed = seed
        self.trained = trained
        self._num_items = num_items if trained is None else len(trained)
        self._communicator = communicator
        self.aligns = aligns
        self._frequency = None if popularity is None else popularity / popularity.sum()

    def draw(self, batch: Batch, step: int) -> Negatives:
        """Draw for one micro-batch of this rank. A collective for `in_batch`, which gathers all ranks' targets."""
        config, num_items, frequency = self._config, self._num_items, None
        if not config.samples_negatives:
            return Negatives(self._draw_for_all(step) if self.aligns else np.zeros(0, np.int64), 0.0)
        estimate = config.name == "sampled_softmax"
        if config.negatives == "uniform":
            # From all items but the target, hence one item fewer.
            return Negatives(
                self._draw_for_each_target(batch, step),
                log_weights(config.num_negatives, num_items - 1, None, estimate),
            )
        if config.negatives == "in_batch":
            own = torch.from_numpy(batch.targets[batch.targets != PADDING])
            everyone = self._communicator.all_gather_rows(own)[0].numpy()
            if not len(everyone):  # a micro-batch of the last step may be without samples
                return Negatives(everyone, 0.0)
            items = batch_negatives(self._seed, step, config.num_negatives, everyone)
            assert self._frequency is not None
            frequency = torch.from_numpy(self._frequency[items]).float()
            # One of the batch's targets is the target itself, which was not drawn.
            drawn = len(items) * max(1, len(everyone) - 1) / len(everyone)
        else:
            items = self._draw_for_all(step)
            drawn = len(items)
        return Negatives(items, log_weights(drawn, num_items, frequency, estimate))

    def _draw_for_all(self, step: int) -> np.ndarray:
        """Draw [num_negatives] items for the whole batch."""
        return self._items(shared_negatives(self._seed, step, self._config.num_negatives, self._num_items))

    def _draw_for_each_target(self, batch: Batch, step: int) -> np.ndarray:
        """Draw [targets, num_negatives] items. Every slot that could hold a target has its draws, so that a target's
        draws depend on its slot alone."""
        slots = batch.targets if self._positions == "all" else batch.targets.max(axis=1, keepdims=True)
        count = self._config.num_negatives
        first = batch.first_sample * slots.shape[1]
        is_target = slots.ravel() != PADDING
        targets = slots.ravel() if self.trained is None else np.searchsorted(self.trained, slots.ravel())
        negatives = uniform_negatives(self._seed, step, first, targets, count, self._num_items)
        return self._items(negatives[is_target])

    def _items(self, drawn: np.ndarray) -> np.ndarray:
        """Map draws, numbers among the items that train, to item indices."""
        return drawn if self.trained is None else self.trained[drawn]
