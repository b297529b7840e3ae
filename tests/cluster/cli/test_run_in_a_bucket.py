"""A whole run whose sources and workspace lie in a bucket, which is slow and fails now and then."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.servers.object_store import ObjectStore
from support.servers.watched_run import COMMAND

from alphafuse.data.synthetic import SyntheticData
from alphafuse.stages import ARTIFACTS
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace

pytestmark = pytest.mark.engine

DATA = SyntheticData(200, 120, 16, 22, 6.0)
CONFIG = {
    "workspace": "s3://bucket/runs/quick",
    "data": {
        "folder": "s3://bucket/data",
        "catalog": {"path": "items/*.parquet", "title": "title"},
        "interactions": {"path": "interactions/*.parquet"},
        "split": {"kind": "leave_one_out"},
    },
    "embed": {"engine": "precomputed", "precomputed": "items/*.parquet"},
    "decompose": {"null_dim": 4},
    "model": {"hidden_dim": 8, "history_length": 8},
    "train": {"resources": {"workers": 2}, "max_epochs": 2, "batch_size": 64, "checkpoint_steps": 2},
    "ray": {"num_cpus": 2},
}
TIMEOUT_SECONDS = 500


def _write_sources() -> None:
    for kind, table in (("items", DATA.items(0)), ("interactions", DATA.interactions_of(0))):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        (Folder("s3://bucket/data") / kind).write_bytes("part-00000.parquet", sink.getvalue())


def test_a_whole_run_in_a_bucket(tmp_path: Path, bucket: ObjectStore) -> None:
    _write_sources()
    config = tmp_path / "quick.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "monitoring": {"targets": str(tmp_path)}}))
    bucket.requests.clear()
    bucket.seconds = 0.002
    bucket.fail("PutObject", "slow down", times=3, key="checkpoints/")
    bucket.fail("PutObject", "lost answer", key="model/dense")
    bucket.fail("PutObject", "reset", key="embeddings/part")
    bucket.fail("GetObject", "reset", key="features/part")
    bucket.fail("GetObject", "truncated", key="popularity/popularity")
    done = subprocess.run([*COMMAND, "run", str(config)], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"NDCG( +0\.\d{4}){5}", done.stdout)
    assert not any(fault.times for fault in bucket._faults)
    _require_few_requests(bucket)
    workspace = Workspace("s3://bucket/runs/quick")
    for name in ARTIFACTS.keys() - {"added"}:
        workspace.artifact(name).verify()
    assert not [key for key in bucket.objects if key.endswith(".tmp") or "/checkpoints/step" in key]


def _require_few_requests(bucket: ObjectStore) -> None:
    """Every file of an artefact is uploaded once under its final name, and nothing is copied."""
    counts = bucket.counts()
    assert counts["CopyObject"] == 0
    inside = [request for request in bucket.requests if re.match(rf"runs/quick/({'|'.join(ARTIFACTS)})/.", request.key)]
    uploads = Counter(request.key for request in inside if request.kind == "PutObject" and request.status == 200)
    repeated = {key: count for key, count in uploads.items() if count > 1}
    assert not {key for key in repeated if not key.endswith("/")}, repeated
    assert counts.total() < 2500, counts
