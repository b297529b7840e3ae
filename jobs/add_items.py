"""Adds items to a finished export between two trainings, and removes others: `alphafuse add-items`.

New items are embedded and projected as the model's own are, and written as a delta beside the export
(`alphafuse.serving.deltas`). No stage runs again, and no file of the export changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from alphafuse.config import Config
from alphafuse.data.added_items import read_item_ids, read_new_items, write_added_catalog
from alphafuse.errors import ConfigError, DataError, StaleError
from alphafuse.events import Listener, StageFinished, StageSkipped, StageStarted, StageWarning
from alphafuse.serving.deltas import REMOVED_FILE, STAGE, delta_at
from alphafuse.serving.export_files import ITEMS, VECTORS, Export, vectors_to_bytes
from alphafuse.serving.exported_items import ExportedItems
from alphafuse.stages import DECOMPOSE, EMBED, EXPORT
from alphafuse.storage.manifest import content_fingerprint, fingerprint
from alphafuse.storage.matrices import to_lists
from alphafuse.storage.ownership import Guard
from alphafuse.storage.workspace import Workspace
from alphafuse.training.untrained_items import untrained_vectors, write_features
from jobs.execution.ray_connection import connected
from jobs.stages import embed
from monitoring.run_log.heartbeat import own

ADDING = "adding"
"""Folder of the workspace in which new items are embedded; deleted in the end."""


@dataclass(frozen=True)
class Added:
    """The changes that a delta has made.

    Attributes:
        items: number of new items.
        without_text: number of items of the file that were left out, since they have no embedding.
        removed: number of removed items.
        delta: number of the delta; 0: there was nothing to do.
    """

    items: int
    without_text: int
    removed: int
    delta: int


def run(config: Config, workspace: Workspace, path: str | None, remove: str | None, listen: Listener) -> Added:
    """Add the items of a file to the export, as far as it does not know them, and remove those of another file.

    Items that are known stay as they are; an item that is in both files is replaced. The same call again does nothing.

    Args:
        path: file of new items, in the form of the catalog; None: there are none.
        remove: file with the ids of items to remove; None: there are none.

    Raises:
        ConfigError: the model's encoder gives an item no vector before a training.
        DataError: a file cannot be read, or none of the new items has an embedding.
        OwnershipError: another process works in the workspace.
        WorkspaceError: there is no finished export of this configuration, or its deltas are damaged.
    """
    artifact = workspace.artifact("export")
    if not artifact.is_committed(EXPORT.inputs(config, workspace)):
        artifact.require()  # says which stage must run
    if path is not None and not EMBED.is_needed(config):
        raise ConfigError(
            f"the encoder {config.model.encoder.name!r} reads no texts, so that no item can be added between "
            "trainings: continue the model with `alphafuse update`"
        )
    with own(workspace, lambda message: listen(StageWarning(STAGE, message))) as heartbeat:
        heartbeat.leaves_trace = False
        export = Export(artifact.folder)
        known = ExportedItems(export.names(), export.removed().tolist())
        gone = [] if remove is None else [item for item in read_item_ids(config.data, remove) if item in known]
        replaced = {*gone}
        kept = {item for item in known.present().to_pylist() if item not in replaced}
        items = None if path is None else read_new_items(config.data, path, kept)
        if not gone and (items is None or not len(items)):
            return Added(0, 0, 0, 0)
        vectors, has_text = torch.empty(0, export.model.item_dim), np.array([], bool)
        if items is not None and len(items):
            vectors, has_text = _vectors(config, workspace.guarded(heartbeat.guard), items, listen)
            items, vectors = items.filter(pa.array(has_text)), vectors[torch.from_numpy(has_text)]
            if not len(items) and not gone:
                raise DataError(f"none of the {len(has_text)} new items of {path} has an embedding: they have no text")
        number = _write(export, items, vectors, gone, heartbeat.guard)
        (workspace.folder / ADDING).delete()
    return Added(len(vectors), int((~has_text).sum()), len(gone), number)


def _vectors(
    config: Config, workspace: Workspace, items: pa.Table, listen: Listener
) -> tuple[torch.Tensor, np.ndarray]:
    """Embed and project new items in a workspace of their own; what an interrupted call has left is used."""
    added = Workspace((workspace.folder / ADDING).uri, workspace.guard)
    try:
        write_added_catalog(added, items)
    except StaleError:  # of other items
        added.folder.delete()
        write_added_catalog(added, items)
    # Texts that are embedded already are taken over, and another encoder is refused.
    update = config.update.model_copy(update={"parent": workspace.folder.uri})
    listen(StageStarted(EMBED.name))
    with connected(config.ray):
        summary = embed.run(config.model_copy(update={"update": update}), added, listen)
    listen(StageSkipped(EMBED.name) if summary is None else StageFinished(EMBED.name, summary))
    if DECOMPOSE.is_needed(config):
        write_features(workspace, added)
    return untrained_vectors(config, workspace, added)


def _write(export: Export, items: pa.Table | None, vectors: torch.Tensor, gone: Sequence[str], guard: Guard) -> int:
    """Write the next delta; returns its number."""
    number = len(export.deltas) + 1
    before = content_fingerprint(export.deltas[-1].require()) if export.deltas else ""
    inputs = {"export": content_fingerprint(export.require()), "before": before}
    delta, wanted = delta_at(export.folder, number, guard), fingerprint(inputs)
    delta.clear()  # what an interrupted call has left
    delta.write_file(REMOVED_FILE, json.dumps(list(gone), ensure_ascii=False).encode(), wanted)
    if items is not None and len(items):
        first = sum(part.require().rows for part in (export, *export.deltas))
        index = pa.array(np.arange(first, first + len(items)))
        columns = [index, items["item_id"], items["title"], to_lists(vectors.numpy())]
        table = pa.table(columns, ["item_index", "item_id", "title", "vector"])
        delta.write_table(f"{ITEMS}{first:012d}.parquet", table, wanted)
        content = vectors_to_bytes(vectors, export.model.similarity)
        delta.write_file(f"{VECTORS}{first:012d}.safetensors", content, wanted, details={"rows": len(items)})
    delta.commit(inputs, {"removed": len(gone)}, rows=len(vectors))
    return number
