"""The language model that a configuration asks for: which one it is, and how texts are put before it.

Shared by the engines; knows nothing of how they compute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from alphafuse.config import EmbedConfig
from alphafuse.errors import ConfigError
from alphafuse.language.models.model_cache import require_stored
from alphafuse.language.models.model_files import ModelUse, file_checksums, is_in_store, is_path, model_folder

Dtype = Literal["float32", "bfloat16", "float16"]
CPU_INFO = Path("/proc/cpuinfo")
_POOLINGS = {"mean": "mean", "last": "lasttoken", "cls": "cls"}
"""Values of `embed.pooling` in the words of sentence-transformers."""


@dataclass(frozen=True)
class LanguageModel:
    """The model that embeds, its precision, and how it reads texts. The settings are those of the section `embed`.

    Attributes:
        name: folder, `package://NAME/FOLDER`, `s3://…` and the like, or name on the Hugging Face hub.
        revision: revision of a model on the hub.
        dtype: dtype in which the model computes.
        max_length: longest text in tokens, prompt and special tokens included.
        long_texts: texts that are longer are cut, averaged over parts, or fail.
        pooling: how the states of the tokens become one vector; "auto": as the model's files say.
        prompt: text before every text; None: as the model's files say.
        end_token: append the tokenizer's end token; None: it must end texts with one itself where the last is pooled.
        dimensions: number of leading components that are kept of each vector (Matryoshka, Kusupati et al. 2022).
        trust_remote_code: run Python code that comes with the model.
        hf_overrides: values that replace those of the model's config.json.
    """

    name: str
    revision: str | None = None
    dtype: Dtype = "float32"
    max_length: int = 256
    long_texts: Literal["cut", "average", "quarantine"] = "cut"
    pooling: Literal["auto", "mean", "last", "cls"] = "auto"
    prompt: str | None = None
    end_token: bool | None = None
    dimensions: int | None = None
    trust_remote_code: bool = False
    hf_overrides: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: EmbedConfig) -> Self:
        """The model that the section `embed` names, as this machine computes it."""
        return cls(
            config.model,
            config.revision,
            _dtype(config),
            config.max_length,
            config.long_texts,
            config.pooling,
            config.prompt,
            config.end_token,
            config.dimensions,
            config.trust_remote_code,
            config.hf_overrides or {},
        )

    @property
    def is_local(self) -> bool:
        """True if the name is a path or a URI rather than a name on the hub."""
        return is_path(self.name)

    def folder(self) -> str:
        """Folder of the model on this machine; a model on the hub is downloaded once.

        Raises:
            ConfigError: there is no such model.
        """
        return model_folder(self.name, self.revision)

    def use(self) -> ModelUse:
        """How the model is used: the settings, and where they are silent what the model's files say.

        Raises:
            ConfigError: there is no such model, it cannot read `max_length` tokens, nothing says how it pools, or it
                leaves the prompt out of the pooling.
        """
        told = ModelUse.read(self.folder())
        positions = self.hf_overrides.get("max_position_embeddings", told.positions)
        if positions is not None and self.max_length > positions:
            raise ConfigError(f"embed.max_length {self.max_length} exceeds the {positions} positions of {self.name!r}")
        pooling = told.pooling if self.pooling == "auto" else _POOLINGS[self.pooling]
        if pooling is None:
            raise ConfigError(
                f"embed.model {self.name!r}: its files do not say how the states of the tokens become one vector; set "
                "embed.pooling as its authors do: last for most decoders, mean or cls for encoders"
            )
        prompt = told.prompt if self.prompt is None else self.prompt
        if prompt and not told.pools_prompt:
            raise ConfigError(
                f"embed.model {self.name!r} leaves prompts out of the pooling, which is not built; set embed.prompt to "
                "an empty text"
            )
        return ModelUse(positions, pooling, prompt, told.pools_prompt)

    def identity(self) -> dict[str, Any]:
        """Checksums of the files, and the settings that the vectors depend on.

        Raises:
            ConfigError: as for `use`.
        """
        use = self.use()
        identity: dict[str, Any] = {
            "model": self.name,
            "revision": self.revision,
            "files": file_checksums(self.folder(), self.trust_remote_code),
            "dtype": self.dtype,
            "pooling": use.pooling,
            "truncate": self.long_texts == "cut",
            "max_length": self.max_length,
        }
        # Settings that came later: where they are not used, vectors of before are still found.
        later = {
            "long_texts": "average" if self.long_texts == "average" else None,
            "prompt": use.prompt,
            "end_token": self.end_token,
            "dimensions": self.dimensions,
            "hf_overrides": self.hf_overrides,
            "trust_remote_code": self.trust_remote_code,
        }
        return identity | {name: value for name, value in later.items() if value}

    def kept(self, width: int) -> int:
        """Width of the vectors that are kept of those of `width` components.

        Raises:
            ConfigError: the model's vectors are narrower than `dimensions`.
        """
        if self.dimensions is not None and self.dimensions > width:
            raise ConfigError(f"embed.dimensions {self.dimensions} exceeds the {width} dimensions of {self.name!r}")
        return self.dimensions or width

    def look(self) -> None:
        """Check a model on this machine without reading its weights, one in an object store without fetching it; the
        hub is not asked.

        Raises:
            ConfigError: as for `use`.
            OSError: the store cannot be read.
        """
        if is_in_store(self.name):
            require_stored(self.name)
        elif self.is_local:
            self.use()


def _dtype(config: EmbedConfig) -> Dtype:
    if config.dtype != "auto":
        return config.dtype
    return "bfloat16" if config.resources.gpus or _cpu_computes_in_bfloat16() else "float32"


def _cpu_computes_in_bfloat16() -> bool:
    flags = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    return any(flag in flags for flag in (" amx_bf16", " avx512_bf16"))
