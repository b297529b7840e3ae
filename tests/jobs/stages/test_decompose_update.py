"""The null space and the features of an update: kept, aligned or recomputed, on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.definitions.dense_decomposition import rows_with_spectrum
from support.workspaces.updated_workspace import write_names

from alphafuse.config import Config, parse_config
from alphafuse.data.hashing import hash_ids
from alphafuse.errors import DataError
from alphafuse.events import Event, Metrics, StageWarning, ignore
from alphafuse.nullspace.decomposition import load_nullspace
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import read_rows, to_column
from alphafuse.storage.workspace import Workspace
from jobs.stages import decompose

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

DIM, HIDDEN, ITEMS = 16, 6, 300
VECTORS = rows_with_spectrum(ITEMS + 100, 0.8 ** np.arange(DIM), seed=11, dtype=np.float16)


def _workspace(folder: Path, vectors: dict[str, np.ndarray]) -> Workspace:
    """A workspace with a catalog and embeddings in two shards; a vector of zeros is a missing one."""
    workspace, inputs = Workspace(str(folder)), {"made by": "hand"}
    names = np.array(list(vectors))
    names = names[np.argsort(hash_ids(pa.array(names)))]
    write_names(workspace, names.tolist())
    rows = np.stack([vectors[name] for name in names])
    artifact, middle = workspace.artifact("embeddings"), len(rows) // 3
    for number, part in enumerate((slice(0, middle), slice(middle, len(rows)))):
        missing = ~rows[part].any(axis=1)
        table = pa.table({"embedding": to_column(rows[part], missing)})
        artifact.write_table(
            f"part-{number}.parquet", table, fingerprint(inputs), first_row=part.start, row_group_size=9
        )
    artifact.commit(inputs)
    return workspace


def _config(workspace: Workspace, parent: Workspace | None = None, encoder: Any = None, **settings: Any) -> Config:
    thresholds = {name: settings.pop(name) for name in list(settings) if name.startswith("max_")}
    return parse_config(
        {
            "workspace": workspace.folder.uri,
            "data": {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}},
            "decompose": {"null_dim": 2, "oversampling": 2, **settings},
            "model": {"hidden_dim": HIDDEN, "encoder": encoder or {"name": "alphafuse"}},
            "update": {"parent": None if parent is None else parent.folder.uri, **thresholds},
        }
    )


def _features(workspace: Workspace) -> dict[str, bytes]:
    catalog = workspace.artifact("catalog")
    names = [name for file in catalog.require().files for name in catalog.read_table(file)["item_id"].to_pylist()]
    rows = read_rows(workspace.artifact("features"), "features", 0, len(names))
    return {name: row.tobytes() for name, row in zip(names, rows, strict=True)}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Workspace:
    vectors = {f"item {number}": VECTORS[number] for number in range(ITEMS)}
    vectors["item 7"] = np.zeros(DIM, np.float16)
    workspace = _workspace(tmp_path_factory.mktemp("parent"), vectors)
    decompose.run(_config(workspace), workspace, ignore)
    return workspace


def _grown(share: float, shift: float = 0.0) -> dict[str, np.ndarray]:
    """The next day's vectors: five items are gone, the texts of two have changed, others are new."""
    new = range(ITEMS, ITEMS + round(share * ITEMS))
    vectors = {f"item {number}": VECTORS[number] for number in range(5, ITEMS)}
    vectors |= {f"item {number}": VECTORS[number] + np.float16(shift) for number in new}
    vectors["item 7"] = np.zeros(DIM, np.float16)
    return vectors | {"item 20": VECTORS[-1], "item 21": VECTORS[-2]}


@pytest.mark.parametrize("method", ["gram", "randomized"])
def test_a_kept_null_space_leaves_the_features_of_unchanged_items_as_they_are_to_the_bit(
    tmp_path: Path, parent: Workspace, method: str
) -> None:
    workspace, events = _workspace(tmp_path, _grown(0.02)), list[Event]()
    config = _config(workspace, parent, method=method)
    summary = decompose.run(config, workspace, events.append)
    assert summary is not None
    assert (summary["null_space"], "change" in summary) == ("kept", False)
    was, now = _features(parent), _features(workspace)
    changed = {"item 20", "item 21"}
    assert {name for name in now if now[name] != was.get(name)} == changed | {f"item {ITEMS + n}" for n in range(6)}
    old, kept = load_nullspace(parent), load_nullspace(workspace)
    assert [getattr(old, name).tobytes() for name in ("mean", "basis", "eigenvalues")] == [
        getattr(kept, name).tobytes() for name in ("mean", "basis", "eigenvalues")
    ]
    np.testing.assert_allclose(np.frombuffer(now["item 20"], np.float32), old.project(VECTORS[-1:])[0], atol=1e-5)
    assert not [event for event in events if isinstance(event, StageWarning)]
    numbers = {name: value for event in events if isinstance(event, Metrics) for name, value in event.numbers.items()}
    assert numbers["drift_distortion"] == summary["distortion"]
    details = workspace.artifact("nullspace").require()
    assert details.inputs["parent"] == parent.artifact("nullspace").require().fingerprint
    assert decompose.run(config, workspace, ignore) is None


def test_beyond_the_thresholds_the_null_space_is_aligned_or_nothing_is_kept(tmp_path: Path, parent: Workspace) -> None:
    vectors = _grown(0.3, shift=0.5)
    kinds = {}
    for name, thresholds in (
        ("aligned", {"max_lost_energy": 1e-6, "max_change": 2.0}),
        ("recomputed", {"max_lost_energy": 1e-6, "max_change": 1e-6}),
    ):
        workspace, events = _workspace(tmp_path / name, vectors), list[Event]()
        summary = decompose.run(_config(workspace, parent, **thresholds), workspace, events.append)
        assert summary is not None
        kinds[summary["null_space"]] = workspace
        said = [event.message for event in events if isinstance(event, StageWarning)]
        assert len(said) == (name == "recomputed")
        assert all("the model is trained from scratch" in message for message in said)
    was = {name: np.frombuffer(row, np.float32) for name, row in _features(parent).items()}
    distances = {}
    for kind, workspace in kinds.items():
        now = {name: np.frombuffer(row, np.float32) for name, row in _features(workspace).items()}
        distances[kind] = sum(((now[name] - was[name]) ** 2).sum() for name in was.keys() & now.keys())
    assert distances["aligned"] < 0.5 * distances["recomputed"]
    assert load_nullspace(kinds["aligned"]).rotation is not None


def test_embeddings_of_another_width_are_refused(tmp_path: Path, parent: Workspace) -> None:
    workspace = _workspace(tmp_path, {name: row[:12] for name, row in _grown(0.0).items()})
    with pytest.raises(DataError, match="has 6 directions of 16 dimensions, where this configuration has 6 of 12"):
        decompose.run(_config(workspace, parent), workspace, ignore)
