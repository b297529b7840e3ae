"""The part of a trained model that reads histories: the backbone over the stored vectors of the items."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from alphafuse.evaluation.vector_blocks import VectorBlocks
from alphafuse.recommenders.base import build_backbone, states_after
from alphafuse.serving.export_files import WEIGHTS_FILE, Export


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
        self._generates = export.model.backbone.generates
        self._backbone = _load_backbone(export)

    @torch.no_grad()
    def hidden_states(self, histories: torch.Tensor) -> torch.Tensor:
        """States after the histories, int64 [queries, length], padded with −1 at the end: [queries, dim], of unit
        length where the score is the cosine."""
        items = histories.clamp(min=0).flatten()
        read = self._vectors[items]
        if self._lengths is not None:
            read *= self._lengths[items]
        states = states_after(self._backbone, read.view(*histories.shape, read.shape[1]), histories < 0)
        if self._generates:
            states = self._backbone.generate(states)
        return states if self._lengths is None else functional.normalize(states, dim=1)


def _load_backbone(export: Export) -> Any:
    weights = export.backbone_weights()
    try:
        with torch.random.fork_rng(devices=[]):
            backbone = build_backbone(export.model, export.model.seed)
        backbone.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())  # torch names each weight in a line
        raise export.damaged(
            WEIGHTS_FILE, f"{cause} (written by alphafuse {export.model.versions.get('alphafuse')})"
        ) from error
    return backbone.eval().requires_grad_(False)
