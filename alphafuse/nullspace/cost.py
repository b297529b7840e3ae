"""Which decomposition is cheaper: a documented estimate, used by `decompose.method: auto`.

Counts float64 operations and bytes; knows nothing of how the work is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alphafuse.nullspace.randomized import num_passes

FLOPS = 3e10
"""Float64 operations per second of one CPU in matrix products (AVX-512: 3–5 · 10^10)."""
READ_BYTES = 2e8
"""Bytes of embeddings per second that one worker reads, decompresses and converts."""
MERGE_BYTES = 1e9
"""Bytes of partial results per second that the merging process receives and adds."""


@dataclass(frozen=True)
class Problem:
    """The size of a decomposition.

    Attributes:
        num_items: n.
        dim: d, of the language embeddings.
        num_directions: k, kept by the decomposition.
        oversampling: p of the randomized range finder.
        power_passes: q of the randomized range finder.
        partials: partial results that are merged, in each pass.
        workers: that read side by side.
        cpus: of each worker.
        value_bytes: of one stored embedding component.
    """

    num_items: int
    dim: int
    num_directions: int
    oversampling: int
    power_passes: int
    partials: int
    workers: int
    cpus: float
    value_bytes: int = 2


def gram_seconds(problem: Problem) -> float:
    """One pass: n·d² operations (the symmetric half of 2·n·d²), merging of d² numbers, 9·d³ for the eigenvectors."""
    n, d = problem.num_items, problem.dim
    return _pass_seconds(problem, n * d**2, d**2) + 9 * d**3 / (FLOPS * problem.cpus)


def randomized_seconds(problem: Problem) -> float:
    """q + 2 passes of 4·n·d·(k+p) operations each, merging of d·(k+p) numbers, and the algebra of the iterates.

    With m = min((q+2)·(k+p), d) columns of iterates: 8·d·m² to orthonormalise and project them, 9·m³ for the
    eigenvectors of the projection.
    """
    n, d, passes = problem.num_items, problem.dim, num_passes(problem.power_passes)
    width = min(problem.num_directions + problem.oversampling, d)
    columns = min(passes * width, d)
    algebra = (8 * d * columns**2 + 9 * columns**3) / FLOPS
    return passes * _pass_seconds(problem, 4 * n * d * width, d * width) + algebra


def cheaper_method(problem: Problem) -> Literal["gram", "randomized"]:
    """The method with the smaller estimate; `gram`, which is exact, where they are equal."""
    return "gram" if gram_seconds(problem) <= randomized_seconds(problem) else "randomized"


def _pass_seconds(problem: Problem, operations: float, partial_numbers: float) -> float:
    """One reading of all embeddings with `operations` on them, then merging partials of `partial_numbers` float64."""
    workers = min(problem.workers, problem.partials)
    read = problem.num_items * problem.dim * problem.value_bytes / (READ_BYTES * workers)
    compute = operations / (FLOPS * problem.cpus * workers)
    return read + compute + problem.partials * partial_numbers * 8 / MERGE_BYTES
