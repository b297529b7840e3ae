"""Says how much of their hosts' memory the ranks of a training keep, and whether the machines of the cluster have it.

Counts what grows with the catalog: a rank's rows of the item table, and the copy from which checkpoints are written
while training goes on. Activations and the process itself come on top.
"""

from __future__ import annotations

import math

from alphafuse.config import Config
from alphafuse.items.encoders.base import build_encoder
from alphafuse.kernels.row_update import STATE_VALUES
from alphafuse.storage.workspace import Workspace
from jobs.execution.placement import room

FLOAT_BYTES = 4
GIGA = 1e9


def rank_bytes(config: Config, workspace: Workspace) -> tuple[int, int]:
    """Bytes of the rows of the largest rank and of its copy for checkpoints, in the memory of its host; on GPUs the
    rows are elsewhere.

    Raises:
        WorkspaceError: an artefact that the encoder reads is not finished.
        ConfigError: a setting does not fit the texts of the catalog.
    """
    resources, encoder = config.train.resources, build_encoder(config, workspace)
    rows = math.ceil(workspace.artifact("catalog").require().rows / resources.workers)
    features = 0 if encoder.frozen is None else encoder.frozen.dim
    trained = STATE_VALUES + (config.train.averaging is not None)  # numbers for each trainable one
    row = FLOAT_BYTES * trained * encoder.trainable_dim
    return (0 if resources.gpus else rows * (FLOAT_BYTES * features + row)), rows * row


def short_of_memory(config: Config, workspace: Workspace) -> str | None:
    """The message to a user whose ranks need more memory than the machines have; None where it suffices, as far as is
    known: machines that the cluster may add do not say how much they have. Raises as `rank_bytes` does."""
    table, copy = rank_bytes(config, workspace)
    resources = config.train.resources
    places = room(resources, grown=True, memory=table + copy)
    if places >= min(resources.workers, room(resources, grown=True)):
        return None
    return (
        f"{resources.workers} ranks keep {(table + copy) / GIGA:.3g} GB each of their machines' memory "
        f"({table / GIGA:.3g} GB of the item table, {copy / GIGA:.3g} GB for checkpoints), and there is room for "
        f"{places} of them, as Ray counts memory (without its object store). If they are killed, use more machines, or "
        "more ranks on more machines"
    )
