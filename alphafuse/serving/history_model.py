"""The part of a loaded model that reads histories of item indices: the query side over the stored item vectors."""

from __future__ import annotations

import torch

from alphafuse.evaluation.ranking.catalog_ranking import diverged
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks
from alphafuse.serving.export_files import WEIGHTS_FILE, Export
from alphafuse.serving.query_model import load_query_model


class HistoryModel:
    """A `HistoryReader` over the files of an export. Not for several threads at a time.

    Args:
        vectors, lengths: as `Export.vectors` gives them.

    Raises:
        WorkspaceError: the weights do not fit the model that the export describes, or a class of a user's own that it
            names cannot be imported.
    """

    def __init__(self, export: Export, vectors: VectorBlocks, lengths: VectorBlocks | None) -> None:
        self.history_length = export.model.history_length
        self._vectors = vectors
        self._lengths = lengths
        weights = export.read_file(WEIGHTS_FILE)
        try:
            self._query_model = load_query_model(export.model, weights)
        except ValueError as error:
            raise export.damaged(WEIGHTS_FILE, error) from error

    @torch.no_grad()
    def hidden_states(self, histories: torch.Tensor) -> torch.Tensor:
        """States after the histories, int64 [queries, length], padded with −1 at the end: [queries, dim], of unit
        length where the score is the cosine.

        Raises:
            AlphafuseError: some are not finite, so that nothing can be ranked.
        """
        items = histories.clamp(min=0).flatten()
        read = self._vectors[items]
        if self._lengths is not None:
            read *= self._lengths[items]
        states: torch.Tensor = self._query_model(read.view(*histories.shape, read.shape[1]), histories < 0)
        broken = ~torch.isfinite(states).all(dim=1)
        if broken.any():
            raise diverged(int(broken.sum()), "hidden states")
        return states
