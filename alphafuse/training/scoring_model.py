"""A model as evaluation and recommendation see it. Knows nothing of losses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from alphafuse.items.item_table import ItemTable
from alphafuse.training.objectives.dense_model import DenseModel

BLOCK_ROWS = 65_536
"""Items encoded at a time."""


class ScoringModel:
    """Item vectors of this rank, and hidden states of histories.

    Attributes:
        num_items: number of items in the catalog.
        first_row: item index of the first of this rank's item vectors.
        history_length: longest history that the model takes.
    """

    def __init__(self, objective: DenseModel, table: ItemTable, history_length: int) -> None:
        self.history_length = history_length
        self.num_items = table.num_items
        self.first_row = table.first_row
        self._objective = objective
        self._table = table

    @torch.no_grad()
    def item_vectors(self) -> torch.Tensor:
        """Encoded items of this rank: [rows of this rank, dim]."""
        table, encoder = self._table, self._objective.encoder
        with self._without_dropout():
            dim = encoder(table.features[:0], table.trainable[:0]).shape[1]
            vectors = torch.empty(len(table.trainable), dim, device=table.trainable.device)
            for start in range(0, len(vectors), BLOCK_ROWS):
                rows = slice(start, start + BLOCK_ROWS)
                vectors[rows] = encoder(table.features[rows], table.trainable[rows])
        return vectors

    @torch.no_grad()
    def hidden_states(self, histories: torch.Tensor) -> torch.Tensor:
        """States after the histories, int64 [queries, length] on the CPU, padded with −1 at the end: [queries, dim].

        A collective: every rank must call it equally often, if need be with no queries.
        """
        rows = self._table.lookup(self._table.plan(histories.numpy()))
        with self._without_dropout():
            return self._objective.hidden_states(rows, histories.to(rows.trainable.device))

    @contextlib.contextmanager
    def _without_dropout(self) -> Iterator[None]:
        training = self._objective.training
        self._objective.eval()
        try:
            yield
        finally:
            self._objective.train(training)
