"""The query side of an exported model: from the vectors of a history's items to the vector that items are scored with.

Plain torch; knows nothing of where the vectors lie.
"""

from __future__ import annotations

from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from alphafuse.recommenders.base import build_backbone, states_after
from alphafuse.serving.export_files import ExportedModel

BACKBONE = "backbone."
"""Beginning of the names of the backbone's weights."""


class QueryModel(nn.Module):
    """The backbone, and what stands between its states and the scores.

    Args:
        backbone: backbone of the model, wrapped by its encoder.
        model: what the model is.
    """

    def __init__(self, backbone: Any, model: ExportedModel) -> None:
        super().__init__()
        self.backbone = backbone
        self._generates = model.backbone.generates
        self._scales = model.similarity == "cosine"

    def forward(self, item_vectors: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Vectors of histories: [histories, dim], of unit length where the score is the cosine.

        Args:
            item_vectors: [histories, length, dim], as the backbone reads them; arbitrary for padding.
            padding: bool [histories, length], True behind the last item of each history.
        """
        states = states_after(self.backbone, item_vectors, padding)
        if self._generates:
            states = self.backbone.generate(states)
        return functional.normalize(states, dim=1) if self._scales else states


def load_query_model(model: ExportedModel, weights: bytes) -> QueryModel:
    """Build the query side of a model.

    Args:
        weights: content of `weights.safetensors`.

    Raises:
        ValueError: the weights are damaged or fit another model, or a class of a user's own that the model names cannot
            be imported.
    """
    try:
        stored = safetensors.torch.load(weights)
        with torch.random.fork_rng(devices=[]):
            backbone = build_backbone(model, model.seed)
        backbone.load_state_dict(
            {name.removeprefix(BACKBONE): value for name, value in stored.items() if name.startswith(BACKBONE)}
        )
    except (safetensors.SafetensorError, RuntimeError) as error:
        cause = " ".join(str(error).split())  # torch names each weight in a line
        raise ValueError(f"{cause} (written by alphafuse {model.versions.get('alphafuse')})") from error
    return QueryModel(backbone.eval().requires_grad_(False), model)
