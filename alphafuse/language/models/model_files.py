"""A language model on disk: finds its files, identifies them by checksums, and reads what they say of its use.

Shared by the engines; knows nothing of how they compute.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from alphafuse.errors import ConfigError, DataError
from alphafuse.language.models.model_cache import NOT_NEEDED, checksum, fetched
from alphafuse.storage.filesystem.folder import resolve

# The files that vectors depend on: weights, configuration and tokenizer.
_FILE_TYPES = (".safetensors", ".bin", ".json", ".txt", ".model")


@dataclass(frozen=True)
class ModelUse:
    """The use of a model as its files describe it, those for sentence-transformers above all.

    Attributes:
        positions: longest input in tokens; None where they do not say.
        pooling: how the states of the tokens become one vector, in their own words ("mean_tokens", "lasttoken"; several
            with a plus); None where they do not say.
        prompt: text that stands before every text where a user asks for none.
        pools_prompt: False: the prompt is read, and left out of the pooling.
    """

    positions: int | None
    pooling: str | None
    prompt: str
    pools_prompt: bool

    @classmethod
    def read(cls, folder: str) -> Self:
        """Read the files in the folder of a model."""
        modules = _json(folder, "modules.json") or []
        paths = [module["path"] for module in modules if str(module.get("type", "")).endswith("Pooling")]
        pooling = _json(folder, os.path.join(paths[0] if paths else "1_Pooling", "config.json"))
        usage = _json(folder, "config_sentence_transformers.json")
        prompt = (usage.get("prompts") or {}).get(usage.get("default_prompt_name"), "")
        positions = _json(folder, "config.json").get("max_position_embeddings")
        return cls(positions, _pooling(pooling), prompt, pooling.get("include_prompt", True))


def is_path(name: str) -> bool:
    """True if the name of a model is a path or a URI rather than a name on the hub."""
    return "://" in name or name.startswith(("/", ".", "~")) or os.path.isdir(name)


def is_in_store(name: str) -> bool:
    """True if the name of a model is the URI of an object store, which no engine reads from."""
    return "://" in name and not name.startswith(("package://", "file://"))


def model_folder(name: str, revision: str | None) -> str:
    """Folder of a model on this machine; a model of an object store or the hub is downloaded once.

    Raises:
        ConfigError: there is no such model.
    """
    if is_path(name):
        try:
            folder = resolve(name)
        except DataError as error:
            raise ConfigError(f"embed.model: {error}") from error
        if is_in_store(folder):
            return _fetched(folder)
        folder = folder.removeprefix("file://")
        if not os.path.isfile(os.path.join(folder, "config.json")):
            raise ConfigError(
                f"embed.model {name!r}: {folder} holds no config.json on this machine; "
                "give the folder of a Hugging Face model that every machine of the cluster has"
            )
        return folder
    return _downloaded(name, revision)


@cache  # the store is asked once, however often a process looks at the model
def _fetched(uri: str) -> str:
    return fetched(uri)


@cache  # the hub is asked once, however often a process looks at the model
def _downloaded(name: str, revision: str | None) -> str:
    # Imported late: HF_HUB_OFFLINE is read at import time, and an engine sets it first.
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, revision=revision, ignore_patterns=NOT_NEEDED)
    except (OSError, ValueError) as error:  # the hub's own errors derive from these
        raise ConfigError(
            f"embed.model {name!r} is no folder and cannot be downloaded from the Hugging Face hub: "
            f"{str(error).splitlines()[0]}"
        ) from error


def file_checksums(folder: str, runs_code: bool = False) -> dict[str, str]:
    """SHA-256 of the weights, configuration and tokenizer in a model folder, by relative path.

    Args:
        runs_code: the model's own Python files count as well.
    """
    checksums, types = {}, (*_FILE_TYPES, ".py") if runs_code else _FILE_TYPES
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder)
            if name.endswith(types) and not relative.startswith((".", "onnx", "openvino")):
                checksums[relative] = checksum(path)
    return dict(sorted(checksums.items()))


def _pooling(settings: dict[str, Any]) -> str | None:
    if isinstance(settings.get("pooling_mode"), str):
        return str(settings["pooling_mode"])
    prefix = "pooling_mode_"
    modes = [key.removeprefix(prefix) for key, on in settings.items() if key.startswith(prefix) and on is True]
    return "+".join(modes) or None


def _json(folder: str, name: str) -> Any:
    """Content of a JSON file; an empty object where there is none."""
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)
