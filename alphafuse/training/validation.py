"""Validations of a training: the metrics of a model on the same validation targets each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alphafuse.config import Config
from alphafuse.data.kept_users import KeptUsers, UserGroups
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import DataError
from alphafuse.evaluation.evaluator import validation_metrics
from alphafuse.training.scoring_model import ScoringModel


class Validation:
    """Ranks the catalog for `train.validation_targets` of the validation targets, drawn once. If these are not all, the
    sequences of their users are kept in memory, on every rank.

    Raises:
        DataError: there are no validation targets.
    """

    def __init__(self, config: Config, sequences: SequenceStore, communicator: Communicator) -> None:
        self._config = config
        self._users: UserGroups = sequences
        self._communicator = communicator
        total, wanted = sequences.num_validation_targets(), config.train.validation_targets
        if not total:
            raise DataError("there is nothing to choose the best weights by: no validation targets; check data.split")
        self._targets = None  # all
        if wanted is not None and wanted < total:
            chosen = np.sort(np.random.default_rng(config.seed).choice(total, wanted, replace=False))
            kept = KeptUsers(sequences, "validation", chosen)
            self._users, self._targets = kept, kept.chosen

    def __call__(self, model: ScoringModel, report: Callable[[int, int], None]) -> dict[str, float]:
        """Metrics by name, equal on every rank. A collective.

        Args:
            report: called now and then with the numbers of users that are done and of all users.
        """
        config = self._config
        return validation_metrics(
            model,
            self._users,
            "validation",
            config.evaluate,
            self._communicator,
            config.similarity,
            self._targets,
            report,
        )
