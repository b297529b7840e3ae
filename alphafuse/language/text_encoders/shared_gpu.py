"""Several engines on one GPU: they start one after the other, and none charges another's memory to itself.

vLLM measures how much memory of the card is taken while it starts, by whomever, and keeps what is left of its share for
keys and values. Two engines that start at once therefore see each other's weights as their own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from alphafuse.storage.filesystem.private_folder import cache_folder, make_private

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STEPS = 2
"""Steps whose keys and values are kept: the one that is computed, and room for texts that go on in the next."""


@contextmanager
def starting_alone() -> Iterator[None]:
    """Context in which no other engine of this user starts on the GPUs that this process sees."""
    locks = cache_folder("engines")
    make_private(locks)
    devices = "".join(letter if letter.isalnum() else "-" for letter in os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    with FileLock(locks / f"{devices[:100]}.lock"):
        yield


def key_value_bytes(folder: str, tokens: int, dtype: str) -> int | None:
    """Memory for keys and values of a model that computes `tokens` tokens at a time; None where config.json does not
    tell, and vLLM has to measure.

    Args:
        folder: folder of the model.
        dtype: number format that it computes in.
    """
    config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_bytes())
    config = config.get("text_config", config)
    heads = config.get("num_attention_heads")
    if not heads or "num_hidden_layers" not in config or "hidden_size" not in config:
        return None
    width = (config.get("num_key_value_heads") or heads) * (config.get("head_dim") or config["hidden_size"] // heads)
    return int(_STEPS * tokens * 2 * config["num_hidden_layers"] * width * _BYTES[dtype])
