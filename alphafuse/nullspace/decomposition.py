"""The artefact `nullspace`: the kept directions of the embedding space, and the projection of embeddings onto them.

Makes the artefact from eigenpairs, cuts row space from null space, projects, saves and loads. Knows nothing of how the
eigenpairs are found or of who reads the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from alphafuse.config import DecomposeConfig
from alphafuse.errors import ConfigError, DataError
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace

FILE = "nullspace.safetensors"
ROW_DIM = 32
"""Directions of the row space, where the configuration leaves open where it ends (docs/results.md, "How much stays
text")."""
RELATIVE_FLOOR = 1e-7
"""Smallest eigenvalue that whitening divides by (its root), as a share of the largest. Variances below it come from the
rounding of the stored embeddings (float16: about 1e-8 of their mean square), and not from their content."""


@dataclass(frozen=True)
class NullSpace:
    """Row space and null space of the *scaled* embeddings s·e (AlphaFuse §3.1).

    `mean` is s times the mean of the embeddings; eigenvalues and variance are s² times those of the embeddings.

    Attributes:
        mean: [dim], μ.
        basis: [dim, hidden_dim], orthonormal directions, leading first; the largest component of each is positive.
        eigenvalues: [hidden_dim], λ, descending, not negative.
        spectrum: all known eigenvalues: [dim] (gram), or at most [hidden_dim + oversampling] (randomized).
        total_variance: the sum of all dim eigenvalues.
        scale: s.
        null_dim: number of the last directions of `basis`, which span the null space.
        standardize: if True, `project` whitens.
        method: "gram" or "randomized".
        rotation: [hidden_dim, hidden_dim], orthogonal and zero between row space and null space: the last factor of the
            projection, which turns features to those of an earlier null space (see `drift`); None: there is none.
    """

    mean: np.ndarray
    basis: np.ndarray
    eigenvalues: np.ndarray
    spectrum: np.ndarray
    total_variance: float
    scale: float
    null_dim: int
    standardize: bool
    method: str
    rotation: np.ndarray | None = None

    @property
    def hidden_dim(self) -> int:
        return self.basis.shape[1]

    @property
    def row_dim(self) -> int:
        return self.hidden_dim - self.null_dim

    @property
    def retained_energy(self) -> float:
        """Share of the variance that lies in the kept directions."""
        return float(self.eigenvalues.sum() / self.total_variance)

    @property
    def eigenvalue_floor(self) -> float:
        """Floor of whitening, which divides by √max(λ, floor); directions below it get the variance λ/floor."""
        return RELATIVE_FLOOR * float(self.eigenvalues[0])

    @property
    def deviations(self) -> np.ndarray:
        """[hidden_dim], √max(λ, floor): standard deviations of the embeddings along the directions."""
        return np.sqrt(np.maximum(self.eigenvalues, self.eigenvalue_floor))

    @property
    def clamped(self) -> int:
        """Number of directions with an eigenvalue below the floor; 0 without whitening."""
        return int((self.eigenvalues < self.eigenvalue_floor).sum()) if self.standardize else 0

    def project(self, block: np.ndarray) -> np.ndarray:
        """Features of embeddings: (s·e − μ) U, as `to_features` gives them.

        Args:
            block: [rows, dim], embeddings as stored (not scaled), any float type.

        Returns:
            [rows, hidden_dim], float32, computed in float64.
        """
        coordinates = (self.scale * block.astype(np.float64) - self.mean) @ self.basis  # [rows, hidden_dim]
        return self.to_features(coordinates).astype(np.float32)

    def to_features(self, coordinates: np.ndarray) -> np.ndarray:
        """Features of points that are given by their coordinates in the directions, [rows, hidden_dim] → the same:
        with `standardize` each direction is divided by √max(λ, floor); then they are rotated."""
        features = coordinates / self.deviations if self.standardize else coordinates
        return features if self.rotation is None else features @ self.rotation

    def summary(self) -> dict[str, Any]:
        """The numbers for manifests, events and reports."""
        return {
            "embedding_dim": len(self.mean),
            "hidden_dim": self.hidden_dim,
            "row_dim": self.row_dim,
            "null_dim": self.null_dim,
            "method": self.method,
            "scale": self.scale,
            "standardize": self.standardize,
            "eigenvalue_max": float(self.eigenvalues[0]),
            "eigenvalue_min": float(self.eigenvalues[-1]),
            "total_variance": self.total_variance,
            "retained_energy": self.retained_energy,
            "eigenvalue_floor": self.eigenvalue_floor,
            "clamped": self.clamped,
        }


def build_nullspace(
    mean: np.ndarray,
    values: np.ndarray,
    vectors: np.ndarray,
    total_variance: float,
    *,
    hidden_dim: int,
    config: DecomposeConfig,
    method: str,
) -> NullSpace:
    """Keep `hidden_dim` directions and cut them into row space and null space.

    Args:
        mean: [dim], mean of the embeddings as stored; no argument is scaled.
        values: [known], eigenvalues of the covariance, descending; at least `hidden_dim`.
        vectors: [dim, known], eigenvectors.
        total_variance: trace of the covariance.
        hidden_dim: k.
        config: scale, cut and whitening.
        method: method that found the eigenpairs.

    Raises:
        DataError: all embeddings are the same.
        ConfigError: the row space or the null space would be empty.
    """
    # A smaller variance comes from rounding when all rows are equal.
    if total_variance <= 1e-14 * float(mean @ mean) or total_variance == 0:
        raise DataError(
            "all embeddings are the same, so there are no directions to decompose. "
            "Check that the template `data.catalog.text` uses columns that differ between items"
        )
    spectrum = np.maximum(values, 0.0) * config.scale**2
    eigenvalues = spectrum[:hidden_dim]
    basis = vectors[:, :hidden_dim]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None, :], axis=0)  # [1, hidden_dim]
    return NullSpace(
        mean=mean * config.scale,
        basis=basis * np.where(largest < 0, -1.0, 1.0),
        eigenvalues=eigenvalues,
        spectrum=spectrum,
        total_variance=total_variance * config.scale**2,
        scale=config.scale,
        null_dim=choose_null_dim(eigenvalues, config),
        standardize=config.standardize,
        method=method,
    )


def choose_null_dim(eigenvalues: np.ndarray, config: DecomposeConfig) -> int:
    """Number of kept directions that belong to the null space, by the rule that `config` sets.

    * `null_dim`: that many;
    * `null_threshold` τ: those with λ ≤ τ;
    * `row_energy` r: all after the smallest row space with Σ λ ≥ r · (Σ λ of the kept directions);
    * none of them: all but `ROW_DIM`, and at least half.

    Args:
        eigenvalues: [hidden_dim], of the scaled embeddings, descending.

    Raises:
        ConfigError: the row space or the null space would be empty.
    """
    kept = len(eigenvalues)
    if config.null_threshold is not None:
        rule = f"decompose.null_threshold {config.null_threshold:g}"
        null_dim = int((eigenvalues <= config.null_threshold).sum())
    elif config.row_energy is not None:
        rule = f"decompose.row_energy {config.row_energy:g}"
        energy = np.cumsum(eigenvalues)
        null_dim = kept - int(np.searchsorted(energy, config.row_energy * energy[-1])) - 1
    else:
        null_dim = config.null_dim or kept - min(ROW_DIM, kept // 2)
        rule = f"decompose.null_dim {null_dim}"
    if not 0 < null_dim < kept:
        raise ConfigError(
            f"{rule} leaves no {'null' if null_dim <= 0 else 'row'} space among the {kept} kept directions "
            f"(model.hidden_dim), whose eigenvalues at decompose.scale {config.scale:g} go from "
            f"{eigenvalues[0]:.4g} down to {eigenvalues[-1]:.4g}. Choose another cut"
        )
    return null_dim


def require_feasible(num_items: int, embedding_dim: int, hidden_dim: int) -> None:
    """Check that `hidden_dim` directions can be found.

    Args:
        num_items: number of rows that the covariance is computed from.

    Raises:
        ConfigError: the embeddings have fewer dimensions.
        DataError: there are fewer items.
    """
    if hidden_dim > embedding_dim:
        raise ConfigError(
            f"model.hidden_dim ({hidden_dim}) exceeds the {embedding_dim} dimensions of the embeddings; "
            "lower it, or take a larger language model in embed.model"
        )
    if num_items < hidden_dim:
        raise DataError(
            f"the catalog has {num_items} items that count (with an embedding, not held out of training, and with "
            f"training interactions where decompose.popularity_weighted), fewer than the {hidden_dim} directions of "
            f"model.hidden_dim; set model.hidden_dim to {max(2, num_items // 2)}, say, or give a larger catalog"
        )


def save_nullspace(
    nullspace: NullSpace, artifact: Artifact, inputs: dict[str, Any], details: dict[str, Any] | None = None
) -> None:
    """Write and commit the artefact: arrays as safetensors, numbers (with further `details`) in the manifest."""
    arrays = {name: getattr(nullspace, name) for name in ("mean", "basis", "eigenvalues", "spectrum")}
    if nullspace.rotation is not None:
        arrays["rotation"] = nullspace.rotation
    content = save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    artifact.write_file(FILE, content, fingerprint(inputs))
    artifact.commit(inputs, {**nullspace.summary(), **(details or {})})


def load_nullspace(workspace: Workspace) -> NullSpace:
    """Read the artefact of a workspace.

    Raises:
        WorkspaceError: `decompose` has not finished, or the file is damaged.
    """
    artifact = workspace.artifact("nullspace")
    numbers = artifact.require().details
    try:
        arrays = load_tensors(artifact.read_file(FILE))
    except SafetensorError as error:
        raise artifact.damaged(FILE, error) from error
    return NullSpace(
        **arrays,
        total_variance=numbers["total_variance"],
        scale=numbers["scale"],
        null_dim=numbers["null_dim"],
        standardize=numbers["standardize"],
        method=numbers["method"],
    )
