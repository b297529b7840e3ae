"""Input of the dense part of a model in one training step, besides the rows that it looked up.

Everything that depends on where targets and padding lie is found out on the host, so that the model neither masks
rows out nor asks how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from alphafuse.data.sequences import ranges
from alphafuse.items.item_table import Rows
from alphafuse.items.lookup_plan import PADDING
from alphafuse.items.row_sums import Gathering
from alphafuse.kernels.negative_sums import OwnNegatives

Draws = TypeVar("Draws")


@dataclass(frozen=True)
class StepInput(Generic[Draws]):
    """Input of one micro-batch of one rank. Its items are looked up in the order histories, targets, negatives.

    Attributes:
        padding: bool [samples, length], True where a history has no item.
        predicted: from the states of all positions, [samples · length, …], to those that have a target.
        last: int64 [samples], the position of its target in each sample; None where samples may have several targets.
        negatives: shape of the negatives: [count], for all targets, or [targets, count]. Where targets are scored
            against `ScoredRows`, or against nothing, they are those of the alignment alone, and none for methods that
            align nothing.
        own: int64 [pairs], positions in the flat scores, [targets · count], of negatives that are the target itself.
        log_weights: added to the logits of the negatives: a number or [count].
        draws: random numbers that the objective drew on the host; None for those that draw none.
    """

    padding: torch.Tensor
    predicted: Gathering
    last: torch.Tensor | None
    negatives: tuple[int, ...]
    own: torch.Tensor
    log_weights: torch.Tensor | float
    draws: Draws

    def split(self, looked_up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Split [items, …] into histories [samples · length, …], targets [targets, …] and negatives [negatives, …]."""
        in_histories, targets = self.padding.numel(), len(self.predicted.places)
        ends = (in_histories, in_histories + targets)
        return looked_up[: ends[0]], looked_up[ends[0] : ends[1]], looked_up[ends[1] :]


def plan_input(
    histories: np.ndarray,
    targets: np.ndarray,
    negatives: np.ndarray,
    log_weights: torch.Tensor | float,
    draws: Draws,
    one_each: bool,
) -> tuple[StepInput[Draws], np.ndarray]:
    """Plan the input of a micro-batch on the host; returns it with its items, int64 [items], −1 for padding.

    Args:
        histories, targets: int64 [samples, length], −1 where there is none.
        negatives: int64 [count] or [targets, count] (for the positions that have a target).
        one_each: every sample has exactly one target.
    """
    is_target = targets != PADDING
    predicted = Gathering.at(is_target.ravel())
    last = torch.from_numpy(is_target.argmax(axis=1)) if one_each else None
    wanted = targets[is_target]
    own = torch.from_numpy(_own_negatives(wanted, negatives))
    padding = torch.from_numpy(histories == PADDING)
    given = StepInput(padding, predicted, last, negatives.shape, own, log_weights, draws)
    return given, np.concatenate([histories.ravel(), wanted, negatives.ravel()])


def equal_pairs(ones: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of equal numbers of `ones` [rows] and `others` [columns], in the order of the rows: their rows and
    their columns, int64 [pairs] each."""
    order = np.argsort(others, kind="stable")
    ascending = others[order]
    first = np.searchsorted(ascending, ones)
    # Few have an equal one: the search for the end of its repeats is for these alone.
    rows = np.flatnonzero(np.append(ascending, -1)[first] == ones)
    first = first[rows]
    counts = np.searchsorted(ascending, ones[rows], "right") - first
    return np.repeat(rows, counts), order[ranges(first, counts)]


def _own_negatives(targets: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    if negatives.ndim == 2:
        return np.flatnonzero(negatives == targets[:, None])
    rows, columns = equal_pairs(targets, negatives)
    return rows * len(negatives) + columns


@dataclass(frozen=True)
class ScoredBlock:
    """Rows of this rank that the targets of all ranks are scored against.

    Attributes:
        rows: the rows.
        own: those that are the target itself: a target is not its own negative.
    """

    rows: Rows
    own: OwnNegatives


@dataclass(frozen=True)
class ScoredRows:
    """All rows of this rank that the targets of all ranks are scored against.

    Attributes:
        blocks: the rows, in blocks of bounded size.
        targets: number of targets of each rank.
    """

    blocks: list[ScoredBlock]
    targets: list[int]
