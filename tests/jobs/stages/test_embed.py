"""The embed stage: content of the shards, texts that are embedded again, failures."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from support.workspaces import embed_cases
from support.workspaces.embed_cases import CONFIG, DIM, HashEncoder, vector, write_catalog

from alphafuse.config import EmbedConfig
from alphafuse.config.sections.resources import EngineResources
from alphafuse.errors import DataError, ResourceError, WorkspaceError
from alphafuse.events import Event, Progress, StageWarning, WorkerServing, WorkersGone, WorkersRestarted, ignore
from alphafuse.storage.matrices import VectorType, read_rows
from alphafuse.storage.workspace import Workspace
from jobs.execution.reporting.worker_metrics import Serving
from jobs.stages.embed import embed
from monitoring.run_log.heartbeat import own

ray.cloudpickle.register_pickle_by_value(embed_cases)  # the workers cannot import modules of the tests
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]


def _with_resources(**resources: float) -> EmbedConfig:
    return CONFIG.model_copy(update={"resources": EngineResources(**resources)})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "workspace"))


@pytest.fixture
def encoder(tmp_path: Path) -> HashEncoder:
    return HashEncoder(tmp_path)


def texts_of(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def stored(workspace: Workspace) -> np.ndarray:
    artifact = workspace.artifact("embeddings")
    artifact.verify()
    return read_rows(artifact, "embedding", 0, artifact.require().rows)


def expected(texts: list[str], missing: tuple[str, ...] = ()) -> np.ndarray:
    return np.stack([np.zeros(DIM) if not text or text.startswith(missing) else vector(text) for text in texts])


def test_an_engine_may_take_every_cpu(workspace: Workspace, encoder: HashEncoder) -> None:
    """The first test of the file: after a failed pipeline, Ray Data may keep an engine's actor, and its CPU, for as
    long as the driver lives."""
    write_catalog(workspace, texts_of(40), shard_rows=20)
    embed(encoder, _with_resources(cpus=4), workspace, ignore)
    np.testing.assert_allclose(stored(workspace), expected(texts_of(40)), rtol=1e-6)


def test_shards_hold_the_vector_of_every_item_and_each_text_is_embedded_once(
    workspace: Workspace, encoder: HashEncoder
) -> None:
    texts = ["same", *texts_of(60), "same", "", "text 7", "same"]
    write_catalog(workspace, texts, shard_rows=20)
    events: list[Event] = []
    summary = embed(encoder, CONFIG, workspace, events.append)

    np.testing.assert_allclose(stored(workspace), expected(texts), rtol=1e-6)
    assert sorted(encoder.embedded()) == sorted({text for text in texts if text})
    artifact = workspace.artifact("embeddings")
    catalog = workspace.artifact("catalog")
    names = [file.name for file in artifact.require().files if file.rows]
    assert names == [file.name for file in catalog.require().files]
    for name in names:
        shard, items = artifact.read_table(artifact.file(name)), catalog.read_table(catalog.file(name))
        assert shard["item_index"] == items["item_index"]
        assert shard["text_hash"] == items["text_hash"]
        assert shard["embedding"].is_null().to_pylist() == [not text for text in items["text"].to_pylist()]
    details = artifact.require().details
    counts = {key: details[key] for key in ("items", "distinct_texts", "embedded", "reused", "empty", "quarantined")}
    assert counts == {
        "items": 65, "distinct_texts": 62, "embedded": 62, "reused": 0, "empty": 1, "quarantined": 0,
    }  # fmt: skip
    assert details["dim"] == DIM
    assert details["encoder"]["engine"] == "hash"
    assert "vectors" not in artifact.folder.names()
    for unit, total in (("texts", 62), ("items", 65)):  # embedded, then gathered
        progress = [event.done for event in events if isinstance(event, Progress) and event.unit == unit]
        assert progress == sorted(progress)
        assert progress[-1] == total
    assert summary is not None
    assert summary.items() >= counts.items()


@pytest.mark.timeout(120)  # the first engine waits for the second
def test_several_engines_share_the_work_and_start_once_each(workspace: Workspace, tmp_path: Path) -> None:
    encoder, texts = HashEncoder(tmp_path, engines=2), texts_of(120)
    write_catalog(workspace, texts, shard_rows=25)
    embed(encoder, _with_resources(workers=2), workspace, ignore)
    np.testing.assert_allclose(stored(workspace), expected(texts), rtol=1e-6)
    assert len(encoder.embedded()) == 120
    assert encoder.times_started() == 2


def test_a_finished_stage_starts_no_engine(workspace: Workspace, encoder: HashEncoder) -> None:
    write_catalog(workspace, texts_of(10), shard_rows=5)
    embed(encoder, CONFIG, workspace, ignore)
    assert embed(encoder, CONFIG, workspace, ignore) is None
    assert encoder.times_started() == 1


def test_an_engine_that_computes_other_vectors_stops_before_they_mix(workspace: Workspace, tmp_path: Path) -> None:
    """The second run has an engine of the same name whose vectors have turned, as after an update of a library."""
    write_catalog(workspace, texts_of(20), shard_rows=20)
    embed(HashEncoder(tmp_path), CONFIG, workspace, ignore)
    before = HashEncoder(tmp_path).embedded()
    texts = texts_of(30)
    write_catalog(workspace, texts, shard_rows=20)  # the canaries outlive a change of the catalog
    with pytest.raises(ResourceError, match=r"computes other vectors than those that are stored \(1 − cosine up to"):
        embed(HashEncoder(tmp_path, tilt=0.5), CONFIG, workspace, ignore)
    assert HashEncoder(tmp_path).embedded() == before
    embed(HashEncoder(tmp_path, tilt=1e-4), CONFIG, workspace, ignore)
    np.testing.assert_allclose(stored(workspace), expected(texts), atol=1e-4)


def test_half_precision_is_stored_as_such(workspace: Workspace, encoder: HashEncoder) -> None:
    texts = texts_of(10)
    write_catalog(workspace, texts, shard_rows=5)
    embed(encoder, CONFIG.model_copy(update={"storage_dtype": "float16"}), workspace, ignore)
    artifact = workspace.artifact("embeddings")
    schema = artifact.read_table(artifact.file("part-00001.parquet")).schema
    assert schema.field("embedding").type == VectorType(np.dtype(np.float16), DIM)
    np.testing.assert_allclose(stored(workspace), expected(texts), atol=1e-3)


def test_bad_texts_are_quarantined_with_their_reason_and_the_rest_is_embedded(
    workspace: Workspace, encoder: HashEncoder
) -> None:
    texts = texts_of(50)
    texts[3], texts[17], texts[33], texts[40] = "refused", "too long", "not finite", "refused"
    write_catalog(workspace, texts, shard_rows=20)
    events: list[Event] = []
    embed(encoder, CONFIG.model_copy(update={"max_quarantined": 0.1}), workspace, events.append)

    np.testing.assert_allclose(stored(workspace), expected(texts, ("refused", "too long", "not finite")), rtol=1e-6)
    artifact = workspace.artifact("embeddings")
    assert artifact.require().details["quarantined_by_reason"] == {"refused": 2, "too long": 1, "not finite": 1}
    assert artifact.require().rows == 50
    quarantine = artifact.read_table(artifact.file("quarantine-00000.parquet")).to_pylist()
    assert [(row["item_index"], row["item_id"]) for row in quarantine] == [(3, "item-3"), (17, "item-17")]
    assert [row["reason"] for row in quarantine] == ["refused: this text is refused", "too long: 300 tokens"]
    assert "quarantine-00001.parquet" in artifact.folder.names()
    assert any(isinstance(event, StageWarning) and "4 items" in event.message for event in events)


def test_too_many_bad_texts_fail_and_a_higher_limit_continues(workspace: Workspace, encoder: HashEncoder) -> None:
    texts = [*texts_of(20), "refused a", "refused b"]
    write_catalog(workspace, texts, shard_rows=10)
    with pytest.raises(DataError, match=r"2 of 22 items cannot be embedded \(refused: 2\).*(Examples|listed in)"):
        embed(encoder, CONFIG, workspace, ignore)
    embed(encoder, CONFIG.model_copy(update={"max_quarantined": 0.5}), workspace, ignore)
    np.testing.assert_allclose(stored(workspace), expected(texts, ("refused",)), rtol=1e-6)
    assert len(encoder.embedded()) == 20


def test_duplicates_of_a_bad_text_count_against_the_limit(workspace: Workspace, encoder: HashEncoder) -> None:
    write_catalog(workspace, [*texts_of(14), *["refused"] * 6], shard_rows=10)
    with pytest.raises(DataError, match="6 of 20 items"):
        embed(encoder, CONFIG.model_copy(update={"max_quarantined": 0.2}), workspace, ignore)


def test_a_catalog_without_any_text_fails(workspace: Workspace, encoder: HashEncoder) -> None:
    write_catalog(workspace, ["", "", "  "], shard_rows=2)
    with pytest.raises(DataError, match=r"none of the 3 items .*3 texts are empty"):
        embed(encoder, CONFIG, workspace, ignore)


def test_a_changed_catalog_embeds_only_changed_texts(workspace: Workspace, encoder: HashEncoder) -> None:
    before = [*texts_of(50), "refused", ""]
    config = CONFIG.model_copy(update={"max_quarantined": 0.1})
    write_catalog(workspace, before, shard_rows=20)
    embed(encoder, config, workspace, ignore)
    after = ["inserted", *before[:30], "changed", *before[31:], "text 5"]
    write_catalog(workspace, after, shard_rows=15)
    embed(encoder, config, workspace, ignore)

    np.testing.assert_allclose(stored(workspace), expected(after, ("refused",)), rtol=1e-6)
    assert sorted(encoder.embedded()[50:]) == ["changed", "inserted"]
    artifact = workspace.artifact("embeddings")
    details = artifact.require().details
    assert (details["embedded"], details["reused"]) == (2, 51)
    assert len([name for name in artifact.folder.names() if name.endswith(".parquet")]) == 4 + 1
    assert "vectors" not in artifact.folder.names()


def test_a_reordered_catalog_starts_no_engine(workspace: Workspace, encoder: HashEncoder) -> None:
    write_catalog(workspace, texts_of(30), shard_rows=20)
    embed(encoder, CONFIG, workspace, ignore)
    write_catalog(workspace, texts_of(30)[::-1], shard_rows=20)
    embed(encoder, _with_resources(workers=100), workspace, ignore)
    np.testing.assert_allclose(stored(workspace), expected(texts_of(30)[::-1]), rtol=1e-6)
    assert encoder.times_started() == 1


def test_an_update_embeds_only_texts_that_its_parent_lacks(
    workspace: Workspace, encoder: HashEncoder, tmp_path: Path
) -> None:
    """The parent is not changed by a byte; an encoder other than its own is refused before anything is embedded."""
    parent, config = Workspace(str(tmp_path / "parent")), CONFIG.model_copy(update={"max_quarantined": 0.1})
    write_catalog(parent, [*texts_of(50), "refused", ""], shard_rows=20)
    embed(encoder, config, parent, ignore)
    before = {path: path.read_bytes() for path in (tmp_path / "parent").rglob("*") if path.is_file()}
    after = ["inserted", *texts_of(30), "changed", "refused", "text 5"]
    write_catalog(workspace, after, shard_rows=15)
    donors = [parent.artifact("embeddings")]
    with pytest.raises(WorkspaceError, match=r"was made by another encoder \(engine: 'hash' → 'other'\)"):
        embed(HashEncoder(encoder.folder, name="other"), config, workspace, ignore, donors=donors)
    with pytest.raises(ResourceError, match="computes other vectors"):  # than the parent's engine
        embed(HashEncoder(encoder.folder, tilt=0.5), config, workspace, ignore, donors=donors)
    embed(encoder, config, workspace, ignore, donors=donors)
    np.testing.assert_allclose(stored(workspace), expected(after, ("refused",)), rtol=1e-6)
    assert sorted(encoder.embedded()[50:]) == ["changed", "inserted"]
    unchanged = stored(parent)[:30].tobytes()
    assert stored(workspace)[1:31].tobytes() == unchanged
    assert {path: path.read_bytes() for path in (tmp_path / "parent").rglob("*") if path.is_file()} == before


def test_a_redo_of_the_catalog_embeds_only_changed_texts_and_keeps_the_old_embeddings(
    workspace: Workspace, encoder: HashEncoder
) -> None:
    write_catalog(workspace, texts_of(30), shard_rows=20)
    embed(encoder, CONFIG, workspace, ignore)
    with own(workspace) as heartbeat:
        owner = workspace.guarded(heartbeat.guard)
        owner.redo.begin(["catalog", "embeddings"], reusing=["embeddings"])
        write_catalog(owner, [*texts_of(29), "new"], shard_rows=15)
        embed(encoder, CONFIG, owner, ignore)
        np.testing.assert_allclose(stored(workspace), expected(texts_of(30)), rtol=1e-6)
        owner.redo.take()
    assert encoder.embedded()[30:] == ["new"]
    np.testing.assert_allclose(stored(workspace), expected([*texts_of(29), "new"]), rtol=1e-6)


def test_embeddings_of_another_encoder_are_refused(workspace: Workspace, encoder: HashEncoder) -> None:
    write_catalog(workspace, texts_of(10), shard_rows=5)
    embed(encoder, CONFIG, workspace, ignore)
    with pytest.raises(WorkspaceError, match=r"encoder.engine: 'hash' → 'other'.*--redo embed"):
        embed(HashEncoder(encoder.folder, name="other"), CONFIG, workspace, ignore)


def test_unfinished_work_of_another_encoder_is_refused(workspace: Workspace, encoder: HashEncoder) -> None:
    write_catalog(workspace, [*texts_of(10), "refused"], shard_rows=11)
    with pytest.raises(DataError):
        embed(encoder, CONFIG, workspace, ignore)
    with pytest.raises(WorkspaceError, match="--redo embed"):
        embed(HashEncoder(encoder.folder, name="other"), CONFIG, workspace, ignore)


def test_an_engine_killed_in_a_batch_is_started_again(workspace: Workspace, encoder: HashEncoder) -> None:
    texts = [*texts_of(40), "deadly", *texts_of(20)]
    write_catalog(workspace, texts, shard_rows=30)
    events: list[Event] = []
    embed(encoder, CONFIG, workspace, events.append, serving=Serving("127.0.0.1", None))
    (restart,) = [event for event in events if isinstance(event, WorkersRestarted)]
    assert (restart.worker, restart.restarts) == ("0", 1)
    # The engine that replaced the dead one serves elsewhere under its name; in the end no engine serves.
    assert [type(event) for event in events if isinstance(event, WorkerServing | WorkersGone)] == [
        WorkerServing, WorkerServing, WorkersGone
    ]  # fmt: skip
    first, second = [event for event in events if isinstance(event, WorkerServing)]
    assert first.worker == second.worker == "0"
    assert first.address != second.address
    assert (encoder.folder / "died").exists()
    np.testing.assert_allclose(stored(workspace), expected(texts), rtol=1e-6)
    details = workspace.artifact("embeddings").require().details
    assert (details["items"], details["embedded"]) == (61, 41)


def test_a_batch_that_always_kills_its_engine_ends_the_job(workspace: Workspace, encoder: HashEncoder) -> None:
    write_catalog(workspace, [*texts_of(10), "lethal"], shard_rows=10)
    with pytest.raises(ResourceError, match=r"died 4 times.*What is embedded is kept"):
        embed(encoder, CONFIG, workspace, ignore)
    assert set(encoder.embedded()) == set(texts_of(10))


def test_a_killed_job_continues_with_what_is_unfinished(workspace: Workspace, encoder: HashEncoder) -> None:
    texts = texts_of(200)
    write_catalog(workspace, texts, shard_rows=50)
    program = [sys.executable, embed_cases.__file__, workspace.folder.uri, str(encoder.folder), "0.3"]
    with subprocess.Popen(program) as process:
        deadline = time.monotonic() + 60
        while len(encoder.embedded()) < 80 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    time.sleep(1)  # its workers notice and end
    before = len(encoder.embedded())
    assert 80 <= before < 200
    assert workspace.artifact("embeddings").manifest() is None

    embed(encoder, CONFIG, workspace, ignore)
    np.testing.assert_allclose(stored(workspace), expected(texts), rtol=1e-6)
    details = workspace.artifact("embeddings").require().details
    assert details["reused"] >= before - CONFIG.texts_per_batch  # one batch may have been embedded and not yet written
    assert len(encoder.embedded()) == before + details["embedded"]


def test_a_job_killed_between_shards_writes_the_missing_ones(
    workspace: Workspace, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = texts_of(60)
    write_catalog(workspace, texts, shard_rows=20)
    monkeypatch.setattr("jobs.stages.embed._finish", lambda *_: None)
    embed(encoder, CONFIG, workspace, ignore)
    monkeypatch.undo()
    folder = Path(workspace.folder.uri) / "embeddings"
    kept = (folder / "part-00000.parquet").stat().st_mtime_ns
    (folder / "part-00001.parquet").unlink()
    (folder / "part-00001.parquet.record.json").unlink()
    embed(encoder, CONFIG, workspace, ignore)
    np.testing.assert_allclose(stored(workspace), expected(texts), rtol=1e-6)
    assert (folder / "part-00000.parquet").stat().st_mtime_ns == kept
    assert encoder.times_started() == 1


@pytest.mark.parametrize("wish", [{"workers": 5}, {"cpus": 64}, {"gpus": 1}, {"workers": 2, "cpus": 3}])
def test_engines_that_find_no_place_are_refused(
    workspace: Workspace, encoder: HashEncoder, wish: dict[str, float]
) -> None:
    write_catalog(workspace, texts_of(10), shard_rows=2)  # no more engines start than there are batches
    with pytest.raises(
        ResourceError, match=r"embed\.resources\.workers asks for .* room for \d \(1 machines: 4 CPUs and 0 GPUs\)"
    ):
        embed(encoder, _with_resources(**wish), workspace, ignore)


def test_an_engine_that_does_not_start_ends_the_job_with_its_error(workspace: Workspace, tmp_path: Path) -> None:
    write_catalog(workspace, texts_of(10), shard_rows=5)
    with pytest.raises(ResourceError, match="the engine finds no device"):
        embed(HashEncoder(tmp_path, starts=False), CONFIG, workspace, ignore)


def test_without_a_catalog_the_stage_says_what_to_run(workspace: Workspace, encoder: HashEncoder) -> None:
    with pytest.raises(WorkspaceError, match="run the stage 'prepare' first"):
        embed(encoder, EmbedConfig(), workspace, ignore)
