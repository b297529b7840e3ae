"""Item encoders: what a method stores for each item, and the dense map from there to the model width.

The item table decides where rows live and how they travel; an encoder sees only the rows that it is given.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from alphafuse.config import Config, EncoderConfig
from alphafuse.config.registry import ENCODERS
from alphafuse.nullspace.decomposition import NullSpace, load_nullspace
from alphafuse.storage.workspace import Workspace

Initialization = Literal["zeros", "normal", "features"]

# Rows are initialised in blocks with a seed each, so that a row's initial value does not depend on the world size.
INITIALIZATION_BLOCK = 4096


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of an item's text that a method reads.

    Attributes:
        artifact: artefact that holds them. `features`: projections onto the kept directions (whitened, where the
            configuration says so); `embeddings`: vectors of the language model, of unit length by default.
        columns: range of the columns that are read.
        scale: factor on the values.
        mean: [columns], subtracted from the scaled values of items with a text; those without a text stay zero.
    """

    artifact: Literal["features", "embeddings"]
    columns: slice
    scale: float = 1.0
    mean: np.ndarray | None = None

    @property
    def dim(self) -> int:
        return self.columns.stop - self.columns.start


class EncoderContext:
    """Everything that an encoder may know of the run and of its catalog's texts when it is built.

    Attributes:
        hidden_dim: width of the item vectors.
        directions: number of kept directions of the language embeddings, which is the width of all features.
    """

    def __init__(self, config: Config, workspace: Workspace) -> None:
        self.hidden_dim = config.model.hidden_dim
        self.directions = config.directions
        self._scale = config.decompose.scale
        self._workspace = workspace

    def features(self, dim: int) -> FrozenFeatures:
        """The first `dim` features of each item."""
        return FrozenFeatures("features", slice(0, dim))

    def embeddings(self) -> FrozenFeatures:
        """All of the language embeddings, scaled (`decompose.scale`)."""
        dim = self._workspace.artifact("embeddings").require().details["dim"]
        return FrozenFeatures("embeddings", slice(0, dim), self._scale)

    def null_dim(self) -> int:
        """Number of the kept directions that belong to the null space: the last ones."""
        null_dim: int = self._workspace.artifact("nullspace").require().details["null_dim"]
        return null_dim

    def null_basis(self) -> torch.Tensor:
        """U_null, orthonormal directions of the null space: [embedding_dim, null_dim], float32."""
        nullspace = self.nullspace()
        return torch.from_numpy(nullspace.basis[:, nullspace.row_dim :]).float()

    def nullspace(self) -> NullSpace:
        """The whole decomposition."""
        return load_nullspace(self._workspace)


class ItemEncoder(nn.Module):
    """Base of the encoders.

    Attributes:
        settings_class: settings of the section `model.encoder` that chooses this encoder.
        frozen: the features that this method reads, or None where it reads none.
        trainable_dim: width of the trainable rows (0: none).
        initialization: initial values of the trainable rows; "normal" has unit variance, "features" takes the first
            `trainable_dim` columns of the artefact `features`.
        alignment_weight: weight of the loss that pulls the two `alignment_views` together; 0: there is none.
        num_parts: number of vectors of the model's width that lie side by side in an item vector; with more than one,
            `wrap` must prepare the backbone for them.

    `num_parts` and `wrap` are asked of the class that the configuration names, also where no item is encoded.
    """

    settings_class: ClassVar[type[EncoderConfig]]
    frozen: FrozenFeatures | None
    trainable_dim: int
    initialization: Initialization
    alignment_weight: float = 0.0
    num_parts: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, context: EncoderContext) -> ItemEncoder:
        """Build the encoder from settings of `settings_class`.

        Raises:
            ConfigError: a setting does not fit the texts of the catalog.
        """
        raise NotImplementedError

    @abstractmethod
    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        """Map features [rows, feature_dim] and trainable [rows, trainable_dim] to item vectors [rows, dim]."""

    def alignment_views(self, features: torch.Tensor, trainable: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two views of every item, [rows, any dim] each, for methods that align text and behaviour: the first view of a
        target is to be nearer to its own second view than to those of the step's negatives. Items without features
        are left out."""
        raise NotImplementedError

    @classmethod
    def wrap(cls, backbone: nn.Module, hidden_dim: int) -> nn.Module:
        """Return the backbone, of the model's width, wrapped to read histories of this method's item vectors; most
        methods return it as it is."""
        return backbone

    def initial_rows(self, start: int, stop: int, seed: int) -> torch.Tensor:
        """Initial values of the trainable rows [start, stop): [stop − start, trainable_dim], float32; zeros for
        "features", which `build_table` fills in."""
        if self.initialization != "normal":
            return torch.zeros(stop - start, self.trainable_dim)
        return self.normal_rows(start, stop, seed)

    def normal_rows(self, start: int, stop: int, seed: int) -> torch.Tensor:
        """Standard normal values for the rows [start, stop): [stop − start, trainable_dim], float32."""
        rows = np.empty((stop - start, self.trainable_dim), np.float32)
        for block in range(start // INITIALIZATION_BLOCK, -(-stop // INITIALIZATION_BLOCK)):
            first = block * INITIALIZATION_BLOCK
            values = np.random.default_rng([seed, block]).standard_normal(
                (INITIALIZATION_BLOCK, self.trainable_dim), dtype=np.float32
            )
            low, high = max(start, first), min(stop, first + INITIALIZATION_BLOCK)
            rows[low - start : high - start] = values[low - first : high - first]
        return torch.from_numpy(rows)


def build_encoder(config: Config, workspace: Workspace) -> ItemEncoder:
    """The encoder that `model.encoder` chooses, its weights drawn from torch's generator.

    Raises:
        ConfigError: a setting does not fit the texts of the catalog.
    """
    settings = config.model.encoder
    encoder: ItemEncoder = ENCODERS.find(settings.name).build(settings, EncoderContext(config, workspace))
    return encoder
