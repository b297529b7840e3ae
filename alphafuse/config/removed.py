"""Keys of earlier versions that are renamed or gone, and what a message says of each.

A rename is one line here: an old file is refused with the present name of its key.
"""

REMOVED: dict[str, str] = {
    "data.pool": "data.resources.pool",
    "embed.truncate": "set embed.long_texts to cut (true) or quarantine (false)",
    "embed.workers": "embed.resources.workers",
    "embed.cpus_per_worker": "embed.resources.cpus",
    "embed.gpus_per_worker": "embed.resources.gpus",
    "embed.pool": "embed.resources.pool",
    "decompose.workers": "decompose.resources.workers",
    "decompose.cpus_per_worker": "decompose.resources.cpus",
    "decompose.pool": "decompose.resources.pool",
    "train.workers": "train.resources.workers",
    "train.min_workers": "train.resources.min_workers",
    "train.max_restarts": "train.resources.max_restarts",
    "train.cpus_per_worker": "train.resources.cpus",
    "train.gpus_per_worker": "train.resources.gpus",
    "train.pool": "train.resources.pool",
}
"""Old dotted key → present dotted key, or, where there is none, a sentence that says what to do instead."""


def replacement(path: str) -> str | None:
    """A message on a key that was removed or renamed; None for a key that never existed."""
    instead = REMOVED.get(path)
    if instead is None:
        return None
    return f"this key is gone: {instead}" if " " in instead else f"this key is called {instead!r} now"
