"""Protocol of the models that can be evaluated and recommend: item vectors, and hidden states of histories."""

from __future__ import annotations

from typing import Protocol

import torch


class HistoryReader(Protocol):
    """A model as histories see it.

    Attributes:
        history_length: longest history that the model takes.
    """

    history_length: int

    def hidden_states(self, histories: torch.Tensor) -> torch.Tensor:
        """Hidden states [queries, dim] of histories, int64 [queries, length] padded with −1 at the end.

        A collective: every rank must call it equally often, possibly without queries.
        """


class Scorer(HistoryReader, Protocol):
    """A model whose score of an item is the similarity of a hidden state and the item's vector.

    Attributes:
        num_items: number of items in the catalog.
        first_row: item index of the first of this rank's item vectors.
    """

    num_items: int
    first_row: int

    def item_vectors(self) -> torch.Tensor:
        """Vectors of this rank's items: [rows of this rank, dim]."""
