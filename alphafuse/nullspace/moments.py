"""Mean and covariance of embedding rows that arrive in blocks, in any partition.

Accumulates rows and merges partial results. Knows nothing of files, of workers or of the use of the covariance, nor on
which device it computes (see `arithmetic.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from alphafuse.errors import DataError
from alphafuse.nullspace.arithmetic import HOST, Arithmetic, Array


@dataclass(frozen=True)
class Moments:
    """Moments of a set of rows, which give its mean and covariance; sets merge exactly (up to float64 rounding).

    With rows e_i, weights w_i (1 where none are given), W = Σ w_i, the mean is μ = Σ w_i e_i / W and the scatter
    S = Σ w_i (e_i − μ)(e_i − μ)ᵀ. The covariance is

    * uniform:  C = S / (n − 1), as `numpy.cov`;
    * weighted: C = S / W = Σ p_i (e_i − μ)(e_i − μ)ᵀ with the popularities p_i = w_i / W, so that equal
      popularities give the uniform covariance up to the factor (n − 1) / n, whatever n is.

    The scatter may be kept as its product S Ω with a narrow matrix Ω (the `probe`); a randomized decomposition needs
    no more. The blockwise update is that of Chan, Golub & LeVeque (1983), eq. 2.1, in float64:
    for two sets with δ = μ_b − μ_a it adds the outer product δ (Ωᵀδ)ᵀ · W_a W_b / W to the sum of the scatters.

    Moments that are computed on a device stay there until `fetched`, so that blocks are merged where they are.

    Attributes:
        count: number of rows that are present and have a positive weight.
        weight: W.
        mean: [dim], μ.
        probed_mean: [columns], Ωᵀμ (μ itself without a probe).
        scatter: [dim, columns], S Ω (S itself without a probe).
        squares: trace of S.
        weighted: True for the weighted covariance, False for the uniform one.
    """

    count: int
    weight: float
    mean: Array
    probed_mean: Array
    scatter: Array
    squares: float
    weighted: bool

    @classmethod
    def empty(cls, dim: int, *, weighted: bool = False, probe: Array | None = None) -> Moments:
        """Moments of no rows, the neutral element of `merge`."""
        columns = dim if probe is None else probe.shape[1]
        return cls(0, 0.0, np.zeros(dim), np.zeros(columns), np.zeros((dim, columns)), 0.0, weighted)

    @classmethod
    def of(
        cls,
        block: np.ndarray,
        present: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        *,
        probe: Array | None = None,
        first_row: int = 0,
        arithmetic: Arithmetic = HOST,
    ) -> Moments:
        """Moments of one block.

        Args:
            block: [rows, dim], any float type.
            present: [rows] of bool; absent rows do not count.
            weights: [rows], not negative; rows of weight 0 do not count.
            probe: [dim, columns], Ω, as `arithmetic.put` gives it.
            first_row: item index of the first row, for messages.
            arithmetic: where the products are computed.

        Raises:
            DataError: a present row holds NaN or infinity.
        """
        present = np.ones(len(block), bool) if present is None else present
        _require_finite(block, present, first_row)
        kept = present if weights is None else present & (weights > 0)
        if not kept.any():
            return cls.empty(block.shape[1], weighted=weights is not None, probe=probe)
        rows = arithmetic.put(block[kept])  # [kept rows, dim]
        if weights is None:
            weight = float(len(rows))
            mean = rows.mean(axis=0)
            rows -= mean
        else:
            shares = weights[kept].astype(np.float64)
            weight = float(shares.sum())
            mean = arithmetic.put(shares) @ rows / weight
            rows -= mean
            rows *= arithmetic.put(np.sqrt(shares))[:, None]
        return cls(
            count=len(rows),
            weight=weight,
            mean=mean,
            probed_mean=mean if probe is None else mean @ probe,
            scatter=arithmetic.scatter(rows, probe),
            squares=arithmetic.squares(rows),
            weighted=weights is not None,
        )

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together; both must have been made with the same probe."""
        if self.weighted != other.weighted:
            raise ValueError("weighted and uniform moments cannot be merged")
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        weight = self.weight + other.weight
        shift, probed_shift = other.mean - self.mean, other.probed_mean - self.probed_mean
        factor = self.weight * other.weight / weight
        return Moments(
            count=self.count + other.count,
            weight=weight,
            mean=self.mean + shift * (other.weight / weight),
            probed_mean=self.probed_mean + probed_shift * (other.weight / weight),
            scatter=self.scatter + other.scatter + (shift * factor)[:, None] * probed_shift,
            squares=self.squares + other.squares + factor * float(shift @ shift),
            weighted=self.weighted,
        )

    def fetched(self, arithmetic: Arithmetic) -> Moments:
        """The same moments on the host, where those of several devices are merged."""
        mean, probed_mean, scatter = map(arithmetic.fetch, (self.mean, self.probed_mean, self.scatter))
        return replace(self, mean=mean, probed_mean=probed_mean, scatter=scatter)

    def covariance(self) -> Array:
        """The product C Ω with the probe, or C itself without one: [dim, columns].

        Raises:
            DataError: fewer than two rows.
        """
        return self.scatter / self._divisor()

    def total_variance(self) -> float:
        """The trace of C: the variance summed over all directions.

        Raises:
            DataError: fewer than two rows.
        """
        return self.squares / self._divisor()

    def _divisor(self) -> float:
        if self.count < 2:
            kind = "with an embedding and training interactions" if self.weighted else "with an embedding"
            raise DataError(
                f"the catalog has {self.count} item(s) {kind}; the decomposition needs at least two. "
                "Check the catalog's text column and the report of `embed`"
            )
        return self.weight if self.weighted else self.count - 1.0


def _require_finite(block: np.ndarray, present: np.ndarray, first_row: int) -> None:
    finite = np.isfinite(block).all(axis=1) | ~present
    if not finite.all():
        bad = np.flatnonzero(~finite)
        shown = ", ".join(str(first_row + row) for row in bad[:5]) + (", …" if len(bad) > 5 else "")
        raise DataError(
            f"{len(bad)} embedding(s) hold NaN or infinity (item_index {shown}). "
            "Repair the embeddings, or make them again with `alphafuse run CONFIG --redo embed`"
        )
