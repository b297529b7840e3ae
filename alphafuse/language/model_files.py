"""A language model on disk: finds its files, identifies them by checksums, and tokenizes texts.

Shared by the engines; knows nothing of how they compute.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from alphafuse.config import EmbedConfig
from alphafuse.errors import ConfigError, DataError
from alphafuse.storage.folder import resolve

# The files that vectors depend on: weights, configuration and tokenizer.
_FILE_TYPES = (".safetensors", ".bin", ".json", ".txt", ".model")
_NOT_NEEDED = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot"]


@dataclass(frozen=True)
class LanguageModel:
    """The model that embeds, its precision, and the number of tokens it reads.

    Attributes:
        name: folder, `package://NAME/FOLDER`, or name on the Hugging Face hub.
        revision: revision of a model on the hub.
        dtype: dtype in which the model computes.
        max_length: longest text in tokens, special tokens included.
        truncate: cut longer texts; if False, longer texts fail.
    """

    name: str
    revision: str | None
    dtype: Literal["float32", "bfloat16", "float16"]
    max_length: int
    truncate: bool

    @property
    def is_local(self) -> bool:
        """True if the name is a path rather than a name on the hub."""
        return self.name.startswith(("package://", "/", ".", "~")) or os.path.isdir(self.name)

    @classmethod
    def of(cls, config: EmbedConfig) -> Self:
        """The model that the section `embed` names."""
        return cls(config.model, config.revision, config.dtype, config.max_length, config.truncate)

    def folder(self) -> str:
        """Folder of the model on this machine; a model on the hub is downloaded once.

        Raises:
            ConfigError: there is no such model.
        """
        if self.is_local:
            try:
                folder = resolve(self.name)
            except DataError as error:
                raise ConfigError(f"embed.model: {error}") from error
            if not os.path.isfile(os.path.join(folder, "config.json")):
                raise ConfigError(
                    f"embed.model {self.name!r}: {folder} holds no config.json on this machine; "
                    "give the folder of a Hugging Face model that every machine of the cluster has"
                )
            return folder
        # Imported late: HF_HUB_OFFLINE is read at import time, and an engine sets it first.
        from huggingface_hub import snapshot_download

        try:
            return snapshot_download(self.name, revision=self.revision, ignore_patterns=_NOT_NEEDED)
        except (OSError, ValueError) as error:  # the hub's own errors derive from these
            raise ConfigError(
                f"embed.model {self.name!r} is no folder and cannot be downloaded from the Hugging Face hub: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def identity(self) -> dict[str, Any]:
        """Checksums of the files, and the settings that the vectors depend on.

        Raises:
            ConfigError: there is no such model, or it cannot read `max_length` tokens.
        """
        folder = self._fitting_folder()
        return {
            "model": self.name,
            "revision": self.revision,
            "files": file_checksums(folder),
            "dtype": self.dtype,
            "pooling": _pooling(folder),
            "truncate": self.truncate,
            "max_length": self.max_length,
        }

    def look(self) -> None:
        """Check a model on this machine without reading its weights; one on the hub is not asked for.

        Raises:
            ConfigError: there is no such model, or it cannot read `max_length` tokens.
        """
        if self.is_local:
            self._fitting_folder()

    def _fitting_folder(self) -> str:
        """Folder of the model, which must be able to read `max_length` tokens."""
        folder = self.folder()
        positions = _json(folder, "config.json").get("max_position_embeddings")
        if positions is not None and self.max_length > positions:
            raise ConfigError(f"embed.max_length {self.max_length} exceeds the {positions} positions of {self.name!r}")
        return folder

    def tokenize(self, tokenizer: Any, texts: Sequence[str]) -> tuple[list[list[int]], dict[int, str]]:
        """Token ids of every text; and failures of texts that are too long, if texts must not be cut.

        Args:
            tokenizer: tokenizer of the model, from the package transformers.
        """
        options = {"truncation": True, "max_length": self.max_length} if self.truncate else {"verbose": False}
        token_ids = tokenizer(list(texts), **options)["input_ids"]
        failures = {
            position: f"too long: {len(ids)} tokens, embed.max_length is {self.max_length}"
            for position, ids in enumerate(token_ids)
            if len(ids) > self.max_length
        }
        return token_ids, failures


def file_checksums(folder: str) -> dict[str, str]:
    """SHA-256 of the weights, configuration and tokenizer in a model folder, by relative path."""
    checksums = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder)
            if name.endswith(_FILE_TYPES) and not relative.startswith((".", "onnx", "openvino")):
                checksums[relative] = sha256(path)
    return dict(sorted(checksums.items()))


def sha256(path: str) -> str:
    """Checksum of a local file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _pooling(folder: str) -> str:
    """The pooling of token vectors that the model's files for sentence-transformers describe."""
    settings = _json(folder, os.path.join("1_Pooling", "config.json"))
    if isinstance(settings.get("pooling_mode"), str):
        return settings["pooling_mode"]
    prefix = "pooling_mode_"
    modes = [key.removeprefix(prefix) for key, on in settings.items() if key.startswith(prefix) and on is True]
    return "+".join(modes) or "engine default"


def _json(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)
