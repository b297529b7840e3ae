"""What an item encoder is: what a method stores for each item, and the dense map from there to the model width.

Where rows live and how they travel is the table's business; an encoder sees only the rows it is given.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
import torch
from torch import nn

# Rows are initialised in blocks with a seed each, so that a row's first value does not depend on the world size.
INITIALIZATION_BLOCK = 4096


class ItemEncoder(nn.Module):
    """Base of the encoders.

    Attributes:
        feature_columns: which columns of the stored features this method reads, or None where it reads none.
        trainable_dim: width of the trainable rows (0: none).
        initialization: of the trainable rows; "normal" has unit variance.
    """

    feature_columns: slice | None
    trainable_dim: int
    initialization: Literal["zeros", "normal"]

    @abstractmethod
    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        """Map features [rows, feature_dim] and trainable [rows, trainable_dim] to [rows, hidden_dim]."""

    def initial_rows(self, start: int, stop: int, seed: int) -> torch.Tensor:
        """First values of the trainable rows [start, stop): [stop − start, trainable_dim], float32."""
        if self.initialization == "zeros":
            return torch.zeros(stop - start, self.trainable_dim)
        rows = np.empty((stop - start, self.trainable_dim), np.float32)
        for block in range(start // INITIALIZATION_BLOCK, -(-stop // INITIALIZATION_BLOCK)):
            first = block * INITIALIZATION_BLOCK
            values = np.random.default_rng([seed, block]).standard_normal(
                (INITIALIZATION_BLOCK, self.trainable_dim), dtype=np.float32
            )
            low, high = max(start, first), min(stop, first + INITIALIZATION_BLOCK)
            rows[low - start : high - start] = values[low - first : high - first]
        return torch.from_numpy(rows)
