"""The section `export`: what a serving system gets."""

from __future__ import annotations

from alphafuse.config.base import Section


class ExportConfig(Section):
    """Files that a serving system gets beside item vectors and weights."""

    onnx: bool = False
    """Also write `query.onnx`, for ONNX Runtime and its like: it maps the vectors of a history's items to the vector
    that items are scored with. Needs onnxscript (`pip install ".[onnx]"`)."""
    index: bool = False
    """Also write `items.usearch`, an index that finds the nearest items without scoring all of them, for
    `serve.search: approximate` and for usearch in other languages. Needs usearch (`pip install ".[serve]"`)."""
