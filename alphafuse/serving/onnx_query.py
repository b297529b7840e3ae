"""Writes the query side of a model as ONNX, for programs without torch. Needs onnxscript, which torch writes it with.

Item vectors are looked up outside: a catalog of any size stays where its index is.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from alphafuse.errors import ResourceError
from alphafuse.serving.export_files import ExportedModel
from alphafuse.serving.query_model import QueryModel

EXAMPLES = 3
"""Histories of the example that is traced; their number is left open. One would be taken for a constant."""


class _ByLengths(nn.Module):
    """The query side with the lengths of histories in place of a mask."""

    def __init__(self, query_model: QueryModel) -> None:
        super().__init__()
        self.query_model = query_model

    def forward(self, item_vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        padding = torch.arange(item_vectors.shape[1], device=lengths.device) >= lengths[:, None]
        vectors: torch.Tensor = self.query_model(item_vectors, padding)
        return vectors


def to_onnx(query_model: QueryModel, model: ExportedModel) -> bytes:
    """Return the content of `query.onnx`, whose inputs and output are

    * `item_vectors` float32 [histories, history_length, item_dim]: the vectors of the latest items, oldest first, as
      the column `vector` of the export has them; arbitrary behind the last item;
    * `lengths` int64 [histories]: number of these items, from 1 to history_length;
    * `history_vectors` float32 [histories, item_dim]: of unit length where the score is the cosine.

    Raises:
        ResourceError: torch cannot write this backbone as ONNX.
    """
    vectors = torch.zeros(EXAMPLES, model.history_length, model.item_dim)
    lengths = torch.full((EXAMPLES,), model.history_length)
    free = {0: torch.export.Dim.DYNAMIC}
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                _ByLengths(query_model),
                (vectors, lengths),
                input_names=["item_vectors", "lengths"],
                output_names=["history_vectors"],
                dynamic_shapes=(free, free),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = str(error).strip().splitlines()[-1]
        raise ResourceError(f"the backbone {model.backbone.name!r} cannot be written as ONNX ({cause})") from error
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # traces of the stack, with paths of this machine
    content: bytes = program.model_proto.SerializeToString()
    return content
