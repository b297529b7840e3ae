"""Writes a made-up catalog, its language embeddings and a log as the files that a user would have, with Ray tasks.

The files are read as real data are: the configuration that lies beside them runs as it stands.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import yaml

from alphafuse.config import ModelConfig, RayConfig
from alphafuse.config.sections.resources import Resources
from alphafuse.data.synthetic import BLOCK, SyntheticData, num_blocks
from alphafuse.errors import DataError
from alphafuse.events import Listener, Progress, StageFinished, StageStarted
from alphafuse.storage.filesystem.folder import Folder
from jobs.execution.placement import task_slots
from jobs.execution.ray_connection import connected
from jobs.execution.tasks import in_order

STAGE = "synth"
SETTINGS_FILE = "synthetic.json"


def run(data: SyntheticData, folder: Folder, cluster: RayConfig, listen: Listener) -> None:
    """Write `items/*.parquet` (item_id, title, text, embedding), `interactions/*.parquet` (user_id, item_id,
    timestamp) and `config.yaml` into a folder. Files that are there already are kept.

    Raises:
        DataError: the folder holds data of other settings.
        ResourceError: the cluster does not answer.
    """
    listen(StageStarted(STAGE))
    settings = json.dumps(dataclasses.asdict(data), indent=1).encode()
    if not folder.exists(SETTINGS_FILE):
        folder.write_bytes(SETTINGS_FILE, settings)
    elif folder.read_bytes(SETTINGS_FILE) != settings:
        raise DataError(
            f"{folder.uri} holds data of other settings ({SETTINGS_FILE} there); delete it or name another folder"
        )
    if not folder.exists("config.yaml"):
        folder.write_bytes("config.yaml", _config(data, folder).encode())
    with connected(cluster):
        limit = task_slots("ray", Resources())
        kinds = [("items", data.num_items), ("interactions", data.num_users)]
        blocks = [(kind, block) for kind, total in kinds for block in range(num_blocks(total))]
        reference = ray.put(data)
        tasks = in_order(lambda task: _write_block.remote(reference, folder, *task), blocks, limit)
        done = 0
        for rows in tasks:
            done += rows
            listen(Progress(STAGE, done, data.num_items + data.num_users, "items and users"))
    listen(StageFinished(STAGE, {"items": data.num_items, "users": data.num_users, "folder": folder.uri}))


@ray.remote
def _write_block(data: SyntheticData, folder: Folder, kind: str, block: int) -> int:
    """Write one block as one file; returns the number of its items or users."""
    name, total = f"part-{block:05d}.parquet", data.num_items if kind == "items" else data.num_users
    if not (folder / kind).exists(name):
        table = data.items(block) if kind == "items" else data.interactions_of(block)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=BLOCK, use_dictionary=False, compression={"embedding": "none"})
        (folder / kind).write_bytes(name, sink.getvalue())
    return min(BLOCK, total - block * BLOCK)


def _config(data: SyntheticData, folder: Folder) -> str:
    """A configuration that reads the folder."""
    sections: dict[str, Any] = {"workspace": (folder / "run").uri}
    sections["data"] = {
        "folder": folder.uri,
        "catalog": {"path": "items/*.parquet", "title": "title"},
        "interactions": {"path": "interactions/*.parquet"},
        "split": {"kind": "leave_one_out"},
    }
    sections["embed"] = {"engine": "precomputed", "precomputed": "items/*.parquet"}
    most = min(data.dim, data.num_items)  # the embeddings have no more directions than this
    if most < ModelConfig().hidden_dim:
        sections["model"] = {"hidden_dim": most}
    return yaml.safe_dump(sections, sort_keys=False)
