"""The decompose job on Ray, against the exact decomposition in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from ray.cluster_utils import Cluster
from support.definitions.dense_decomposition import exact_covariance, exact_eigen, exact_features, rows_with_spectrum

from alphafuse.config import Config, parse_config
from alphafuse.errors import ConfigError, DataError, ResourceError, UnfinishedError, WorkspaceError
from alphafuse.events import Metrics, Progress, StageWarning, ignore
from alphafuse.nullspace.decomposition import load_nullspace
from alphafuse.storage.manifest import FileRecord, fingerprint
from alphafuse.storage.matrices import VectorType, read_rows, to_column
from alphafuse.storage.workspace import Workspace
from jobs.stages import decompose

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

DIM, HIDDEN_DIM = 24, 10
SHARDS = (0, 130, 131, 260, 300)
EMBEDDINGS = rows_with_spectrum(SHARDS[-1], 0.8 ** np.arange(DIM), seed=11, dtype=np.float16)
MISSING = np.zeros(SHARDS[-1], bool)
MISSING[[0, 17, 130, 200, 299]] = True
COUNTS = np.random.default_rng(5).integers(0, 4, SHARDS[-1])


def configuration(folder: Path, hidden_dim: int = HIDDEN_DIM, **settings: Any) -> Config:
    resources = {name: settings.pop(name) for name in ("workers", "cpus", "gpus", "pool") if name in settings}
    return parse_config(
        {
            "workspace": str(folder),
            "data": {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}},
            "decompose": {"null_dim": 4, "oversampling": 2, "resources": resources, **settings},
            "model": {"hidden_dim": hidden_dim, "encoder": {"name": "alphafuse"}},
        }
    )


def embedded(
    folder: Path, embeddings: np.ndarray = EMBEDDINGS, missing: np.ndarray = MISSING, cuts: tuple[int, ...] = SHARDS
) -> Workspace:
    """A workspace with embeddings in several shards (and a quarantine, like those of `embed`), and popularity."""
    workspace = Workspace(str(folder))
    inputs = {"made by": "hand"}
    artifact = workspace.artifact("embeddings")
    for number, (first, end) in enumerate(pairwise(cuts)):
        write_shard(workspace, number, first, embeddings[first:end], missing[first:end])
    artifact.write_file("quarantine-00000.parquet", b"read by nobody", fingerprint(inputs))
    artifact.commit(inputs)
    popularity = workspace.artifact("popularity")
    counts = COUNTS[: len(embeddings)]
    listed = np.flatnonzero(counts)
    table = pa.table({"item_index": pa.array(listed, pa.int64()), "count": pa.array(counts[listed], pa.int64())})
    popularity.write_table("popularity.parquet", table, fingerprint(inputs))
    popularity.commit(inputs)
    return workspace


def write_shard(workspace: Workspace, number: int, first: int, rows: np.ndarray, missing: np.ndarray) -> None:
    table = pa.table(
        {
            "item_index": pa.array(np.arange(first, first + len(rows)), pa.int64()),
            "embedding": to_column(rows, missing),
        }
    )
    name = f"part-{number:05d}.parquet"
    wanted = fingerprint({"made by": "hand"})
    workspace.artifact("embeddings").write_table(name, table, wanted, first_row=first, row_group_size=50)


def features_of(workspace: Workspace) -> np.ndarray:
    return read_rows(workspace.artifact("features"), "features", 0, SHARDS[-1])


def same_up_to_sign(found: np.ndarray, expected: np.ndarray, atol: float) -> None:
    np.testing.assert_allclose(found * np.sign((found * expected).sum(axis=0)), expected, atol=atol)


@pytest.mark.parametrize("method", ["gram", "randomized"])
def test_features_are_the_references(tmp_path, method):
    workspace, events = embedded(tmp_path), []

    summary = decompose.run(configuration(tmp_path, method=method), workspace, events.append)

    features, present = features_of(workspace), ~MISSING
    same_up_to_sign(features[present], exact_features(EMBEDDINGS[present], 40.0, HIDDEN_DIM), atol=1e-4)
    assert (features[MISSING] == 0).all()
    values, _ = exact_eigen(exact_covariance(40.0 * EMBEDDINGS[present].astype(np.float64))[1])
    nullspace = load_nullspace(workspace)
    np.testing.assert_allclose(nullspace.eigenvalues, values[:HIDDEN_DIM], rtol=1e-8)
    assert (nullspace.method, nullspace.row_dim, nullspace.null_dim) == (method, HIDDEN_DIM - 4, 4)

    embeddings, features_artifact = workspace.artifact("embeddings").require(), workspace.artifact("features")
    shards = [(file.name, file.first_row, file.rows) for file in embeddings.files if file.rows]
    assert [(file.name, file.first_row, file.rows) for file in features_artifact.require().files] == shards
    table = features_artifact.read_table(features_artifact.file("part-00002.parquet"))
    assert table.schema.names == ["item_index", "features"]
    assert table["item_index"].to_pylist() == list(range(131, 260))
    assert table.schema.field("features").type == VectorType(np.dtype(np.float32), HIDDEN_DIM)

    details = workspace.artifact("nullspace").require().details
    assert (details["num_items"], details["num_rows"]) == (present.sum(), SHARDS[-1])
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert progress[-1].done == progress[-1].total
    (measured,) = [event.numbers for event in events if isinstance(event, Metrics)]
    assert (measured["num_rows"], measured["null_dim"], measured["row_dim"]) == (SHARDS[-1], 4, HIDDEN_DIM - 4)
    assert measured["passes"] == 1 if method == "gram" else 2 <= measured["passes"] <= 4
    assert 0 <= measured["residual"] < 1e-6
    assert summary["retained_energy"] == pytest.approx(values[:HIDDEN_DIM].sum() / values.sum())


def test_popularity_weights_mean_and_covariance(tmp_path):
    workspace = embedded(tmp_path)

    decompose.run(configuration(tmp_path, popularity_weighted=True), workspace, ignore)

    counted = ~MISSING & (COUNTS > 0)
    mean, covariance = exact_covariance(40.0 * EMBEDDINGS[counted].astype(np.float64), COUNTS[counted])
    values, vectors = exact_eigen(covariance)
    nullspace = load_nullspace(workspace)
    np.testing.assert_allclose(nullspace.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(nullspace.eigenvalues, values[:HIDDEN_DIM], rtol=1e-8)
    expected = (40.0 * EMBEDDINGS.astype(np.float64) - mean) @ vectors[:, :HIDDEN_DIM] / np.sqrt(values[:HIDDEN_DIM])
    expected[MISSING] = 0
    same_up_to_sign(features_of(workspace), expected, atol=1e-4)
    assert workspace.artifact("nullspace").require().details["num_items"] == counted.sum()


def test_the_null_space_knows_nothing_of_items_that_are_held_out_of_training(tmp_path):
    held_out = np.arange(SHARDS[-1]) % 7 == 3
    nullspaces = []
    for name, factor in (("one", 1), ("other", -3)):
        texts = np.where(held_out[:, None], np.float16(factor) * EMBEDDINGS, EMBEDDINGS)
        workspace = embedded(tmp_path / name, texts)
        popularity, inputs = workspace.artifact("popularity"), {"made by": "hand"}
        table = pa.table({"item_index": np.arange(SHARDS[-1]), "count": COUNTS, "held_out": held_out})
        popularity.write_table("popularity.parquet", table, fingerprint(inputs))
        popularity.commit(inputs, rows=SHARDS[-1])
        settings = configuration(tmp_path / name)
        split = settings.data.split.model_copy(update={"cold_items": 0.14})
        data = settings.data.model_copy(update={"split": split})
        decompose.run(settings.model_copy(update={"data": data}), workspace, ignore)
        nullspaces.append(load_nullspace(workspace))
        assert (np.abs(features_of(workspace)[held_out & ~MISSING]).max(axis=1) > 0).all()
    one, other = nullspaces
    counted = ~held_out & ~MISSING
    mean, covariance = exact_covariance(40.0 * EMBEDDINGS[counted].astype(np.float64))
    np.testing.assert_allclose(one.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(one.eigenvalues, exact_eigen(covariance)[0][:HIDDEN_DIM], rtol=1e-8)
    assert np.array_equal(one.basis, other.basis)
    assert np.array_equal(one.mean, other.mean)


@pytest.mark.parametrize("method", ["gram", "randomized"])
def test_the_number_of_workers_changes_no_byte(tmp_path, method):
    for workers in (1, 3):
        workspace = embedded(tmp_path / str(workers))
        decompose.run(configuration(tmp_path, method=method, workers=workers), workspace, ignore)

    for name in ("nullspace/nullspace.safetensors", "features/part-00000.parquet", "features/part-00003.parquet"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


@pytest.fixture
def gpu_pool(ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The pool of a machine that promises two GPUs, on which the CPU plays the device."""
    monkeypatch.setattr(decompose, "GPU", "cpu")
    machine = ray_cluster.add_node(num_cpus=4, num_gpus=2, resources={"gpus": 1})
    yield "gpus"
    ray_cluster.remove_node(machine)


def same_null_space(folder: Path, on_host: Path) -> None:
    found, expected = (load_nullspace(Workspace(str(each))) for each in (folder, on_host))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(found.basis, expected.basis, atol=1e-6)
    np.testing.assert_allclose(*(features_of(Workspace(str(each))) for each in (folder, on_host)), atol=1e-4)


def test_any_number_of_workers_with_gpus_finds_the_null_space_of_the_host(tmp_path, monkeypatch, gpu_pool):
    decompose.run(configuration(tmp_path / "host", popularity_weighted=True), embedded(tmp_path / "host"), ignore)
    monkeypatch.setattr(decompose, "GPU_TASK_BYTES", 12_000)  # more than one partial result
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        resources = {"workers": workers, "gpus": 0.5, "cpus": 1, "pool": gpu_pool}
        decompose.run(configuration(folder, popularity_weighted=True, **resources), embedded(folder), ignore)

    same_null_space(tmp_path / "1", tmp_path / "host")
    for name in ("nullspace/nullspace.safetensors", "features/part-00000.parquet"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_the_range_finder_on_gpus_finds_the_null_space_of_the_host(tmp_path, gpu_pool):
    settings = {"method": "randomized", "oversampling": DIM, "power_passes": 0}
    for name, resources in (("host", {}), ("gpu", {"gpus": 1, "cpus": 1, "pool": gpu_pool})):
        decompose.run(configuration(tmp_path / name, **settings, **resources), embedded(tmp_path / name), ignore)

    same_null_space(tmp_path / "gpu", tmp_path / "host")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_task_without_its_gpu_fails_and_computes_on_no_cpu(tmp_path, monkeypatch, gpu_pool):
    monkeypatch.setattr(decompose, "GPU", "cuda:0")
    with pytest.raises((AttributeError, AssertionError, RuntimeError), match=r"(?i)cuda|nvidia"):
        decompose.run(configuration(tmp_path, gpus=1, cpus=1, pool=gpu_pool), embedded(tmp_path), ignore)


def test_a_gpu_takes_more_shards_at_a_time(monkeypatch):
    shards = [FileRecord(f"part-{n:05d}.parquet", 10, 10 * n, 1000, "", "") for n in range(7)]
    monkeypatch.setattr(decompose, "GPU_TASK_BYTES", 3000)

    groups = decompose.partial_groups(shards, on_gpus=True)

    assert [len(group) for group in groups] == [2, 2, 3]
    assert [shard for group in groups for shard in group] == shards
    assert decompose.partial_groups(shards, on_gpus=False) == [[shard] for shard in shards]
    monkeypatch.setattr(decompose, "GPU_TASK_BYTES", 10)
    assert decompose.partial_groups(shards, on_gpus=True) == [[shard] for shard in shards]


def test_a_finished_run_does_nothing(tmp_path):
    workspace, events = embedded(tmp_path), []
    decompose.run(configuration(tmp_path), workspace, ignore)

    decompose.run(configuration(tmp_path, workers=1, cpus=2), workspace, events.append)

    assert events == []


def recommit(artifact):
    """Commit files that a test has written anew."""
    manifest = artifact.require()
    artifact.commit(manifest.inputs, manifest.details)


@pytest.mark.parametrize("with_record", [True, False])
def test_only_what_is_missing_is_made_again(tmp_path, with_record):
    workspace = embedded(tmp_path)
    decompose.run(configuration(tmp_path), workspace, ignore)
    before, folder = features_of(workspace), tmp_path / "features"
    workspace.artifact("features").uncommit()
    (folder / "part-00001.parquet").unlink()
    if with_record:
        (folder / "part-00001.parquet.record.json").unlink()
    written = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    written["nullspace"] = (tmp_path / "nullspace" / "manifest.json").stat().st_mtime_ns

    decompose.run(configuration(tmp_path), workspace, ignore)

    kept = {name: (folder / name).stat().st_mtime_ns for name in written if name != "nullspace"}
    kept["nullspace"] = (tmp_path / "nullspace" / "manifest.json").stat().st_mtime_ns
    assert len(kept) == 4
    assert kept == written
    np.testing.assert_array_equal(features_of(workspace), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 20.0}, "decompose.scale: 40.0 → 20.0"),
        ({"null_dim": 5}, "decompose.null_dim: 4 → 5"),
        ({"hidden_dim": 9}, "hidden_dim: 10 → 9"),
        ({"popularity_weighted": True}, "popularity_weighted: False → True"),
        ({"method": "randomized"}, "method: 'gram' → 'randomized'"),
    ],
)
def test_a_null_space_of_another_configuration_is_refused(tmp_path, settings, message):
    workspace = embedded(tmp_path)
    decompose.run(configuration(tmp_path), workspace, ignore)

    with pytest.raises(WorkspaceError, match=message):
        decompose.run(configuration(tmp_path, **settings), workspace, ignore)


def test_features_of_other_embeddings_are_refused(tmp_path):
    workspace = embedded(tmp_path)
    decompose.run(configuration(tmp_path), workspace, ignore)
    workspace.artifact("nullspace").clear()

    with pytest.raises(WorkspaceError, match="nullspace: "):
        decompose.run(configuration(tmp_path, scale=20.0), workspace, ignore)


def test_clamped_directions_are_reported(tmp_path):
    flat = rows_with_spectrum(SHARDS[-1], np.concatenate([np.ones(8), np.zeros(DIM - 8)]), seed=1)
    workspace, events = embedded(tmp_path, flat.astype(np.float32)), []

    decompose.run(configuration(tmp_path, scale=1.0), workspace, events.append)

    (warning,) = [event for event in events if isinstance(event, StageWarning)]
    assert warning.message.startswith("2 of 10 directions")
    assert workspace.artifact("nullspace").require().details["clamped"] == 2
    assert np.abs(features_of(workspace)).max() < 10


class TestRefuses:
    def fails(self, workspace: Workspace, config: Config, error: type[Exception], message: str) -> None:
        """Check that the job ends with this error and leaves no artefact behind."""
        with pytest.raises(error, match=message) as raised:
            decompose.run(config, workspace, ignore)
        assert type(raised.value) is error  # and not Ray's wrapper with a traceback for a message
        assert workspace.artifact("features").manifest() is None

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("method", ["gram", "randomized"])
    def test_values_that_are_not_finite(self, tmp_path, value, method):
        rows = EMBEDDINGS.copy()
        rows[[140, 250], 3] = value

        self.fails(
            embedded(tmp_path, rows),
            configuration(tmp_path, method=method),
            DataError,
            r"2 embedding\(s\) hold NaN or infinity \(item_index 140, 250\)",
        )

    def test_shards_of_different_dimensions(self, tmp_path):
        workspace = embedded(tmp_path)
        write_shard(workspace, 2, 131, EMBEDDINGS[131:260, :20], MISSING[131:260])
        recommit(workspace.artifact("embeddings"))

        message = r"part-00002\.parquet holds embeddings of 20 dimensions, the first shard of 24"
        self.fails(workspace, configuration(tmp_path), DataError, message)

    def test_a_truncated_shard(self, tmp_path):
        workspace = embedded(tmp_path)
        path = tmp_path / "embeddings" / "part-00002.parquet"
        path.write_bytes(path.read_bytes()[:-20])

        message = r"part-00002\.parquet cannot be used.*--redo embed"
        self.fails(workspace, configuration(tmp_path), WorkspaceError, message)

    def test_a_damaged_popularity(self, tmp_path):
        workspace = embedded(tmp_path)
        (tmp_path / "popularity" / "popularity.parquet").write_bytes(b"PAR1")

        config = configuration(tmp_path, popularity_weighted=True)
        self.fails(workspace, config, WorkspaceError, r"popularity\.parquet cannot be used.*--redo prepare")

    def test_a_column_that_is_no_matrix(self, tmp_path):
        workspace = embedded(tmp_path)
        table = pa.table({"item_index": range(130), "embedding": [1.0] * 130})
        artifact = workspace.artifact("embeddings")
        artifact.write_table("part-00000.parquet", table, artifact.require().fingerprint)
        recommit(artifact)

        self.fails(workspace, configuration(tmp_path), WorkspaceError, "does not hold vectors")

    def test_more_directions_than_dimensions(self, tmp_path):
        config = configuration(tmp_path, hidden_dim=DIM + 1)
        self.fails(embedded(tmp_path), config, ConfigError, r"hidden_dim \(25\) exceeds the 24")

    def test_an_encoder_that_wants_the_width_of_the_embeddings(self, tmp_path):
        model = {"hidden_dim": 12, "encoder": {"name": "alphafuse", "injection_space": "euclidean"}}
        tree = configuration(tmp_path).model_dump()
        config = parse_config({**tree, "model": model, "decompose": {**tree["decompose"], "directions": 8}})
        self.fails(embedded(tmp_path), config, ConfigError, r"model\.hidden_dim \(12\) must be 24")

    def test_a_catalog_smaller_than_hidden_dim(self, tmp_path):
        workspace = embedded(tmp_path, EMBEDDINGS[:9], np.zeros(9, bool), (0, 4, 9))
        self.fails(workspace, configuration(tmp_path), DataError, "9 items.*fewer than the 10")

    def test_fewer_embeddings_than_hidden_dim(self, tmp_path):
        missing = np.arange(SHARDS[-1]) >= 7
        self.fails(
            embedded(tmp_path, missing=missing), configuration(tmp_path), DataError, "7 items.*fewer than the 10"
        )

    def test_no_embeddings(self, tmp_path):
        workspace = embedded(tmp_path, missing=np.ones(SHARDS[-1], bool))
        self.fails(workspace, configuration(tmp_path), DataError, r"0 item\(s\) with an embedding.*at least two")

    def test_no_items(self, tmp_path):
        self.fails(embedded(tmp_path, cuts=(0,)), configuration(tmp_path), DataError, "holds no items")

    @pytest.mark.parametrize("method", ["gram", "randomized"])
    def test_equal_embeddings(self, tmp_path, method):
        rows = np.tile(EMBEDDINGS[:1], (SHARDS[-1], 1))
        config = configuration(tmp_path, method=method)
        self.fails(embedded(tmp_path, rows), config, DataError, "all embeddings are the same")

    def test_a_cut_that_leaves_no_null_space(self, tmp_path):
        config = configuration(tmp_path, null_dim=None, null_threshold=1e-9)
        self.fails(embedded(tmp_path), config, ConfigError, "leaves no null space")

    def test_embeddings_that_are_not_finished(self, tmp_path):
        self.fails(Workspace(str(tmp_path)), configuration(tmp_path), UnfinishedError, "run the stage 'embed' first")

    def test_more_cpus_than_the_cluster_has(self, tmp_path):
        workspace = embedded(tmp_path)
        too_many = configuration(tmp_path, workers=5)
        self.fails(
            workspace,
            too_many,
            ResourceError,
            "decompose.resources.workers asks for 5 workers with 1 CPUs and 0 GPUs each.* room for 4",
        )
        too_large = configuration(tmp_path, workers=1, cpus=64)
        self.fails(workspace, too_large, ResourceError, "1 workers with 64 CPUs .* room for 0 .1 machines: 4 CPUs")
