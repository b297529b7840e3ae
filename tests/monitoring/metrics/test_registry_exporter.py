"""Metrics of the versions of a registry, as Prometheus reads them."""

from __future__ import annotations

import urllib.request
from datetime import datetime
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from support.workspaces.made_versions import made_workspace

from alphafuse.registry.version_registry import Registry
from alphafuse.serving.deltas import delta_at
from alphafuse.storage.manifest import content_fingerprint, fingerprint
from alphafuse.storage.workspace import Workspace
from monitoring.metrics.definitions import REGISTRY_METRICS
from monitoring.metrics.registry_exporter import serve


def _scraped(address: str) -> dict[tuple[str, str], float]:
    text = urllib.request.urlopen(f"http://{address}/metrics").read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name.removeprefix("alphafuse_model_"), sample.labels["alias"]): sample.value for sample in samples}


def _with_items(workspace: Workspace, added: int, removed: int) -> None:
    """Write a delta of the export."""
    inputs = {"export": content_fingerprint(workspace.artifact("export").require()), "before": ""}
    delta = delta_at(workspace.artifact("export").folder, 1)
    delta.write_file("items", b"", fingerprint(inputs), rows=added)
    delta.commit(inputs, {"removed": removed})


def test_every_alias_is_served_and_followed(tmp_path: Path) -> None:
    registry, workspace = Registry(str(tmp_path / "registry")), made_workspace(tmp_path / "day1", "a")
    drift = {"kind": "kept", "reason": "small", "lost_energy": 0.002, "distortion": 0.05}
    workspace.artifact("nullspace").commit({}, {"update": drift})
    workspace.artifact("report").commit({}, {"stability": {"queries": 9, "overlap": 0.75}})
    first = registry.add(workspace)
    _with_items(workspace, 5, 2)
    with serve(registry, "127.0.0.1", 0) as address:
        created = datetime.fromisoformat(first.created).timestamp()
        facts = {
            "created_timestamp_seconds": created,
            "items": 3,
            "untrained_items": 5,
            "training_seconds": 5,
            "lost_energy_ratio": 0.002,
            "distortion_ratio": 0.05,
            "overlap_ratio": 0.75,
        }
        assert _scraped(address) == {(name, "candidate"): value for name, value in facts.items()}
        assert {f"alphafuse_model_{name}" for name in facts} == {metric.name for metric in REGISTRY_METRICS}
        registry.promote("v0001", None)
        registry.add(made_workspace(tmp_path / "day2", "b"))
        scraped = _scraped(address)
        assert {alias for _, alias in scraped} == {"production", "candidate"}
        assert scraped["untrained_items", "production"] == 5
        assert ("overlap_ratio", "candidate") not in scraped
