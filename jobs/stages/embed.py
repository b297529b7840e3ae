"""The stage `embed`: the texts of the catalog become language embeddings, shard by shard.

Three steps, each of which continues where a killed job stopped. Plan: by content hash, every different text that has
no vector yet goes into one batch. Embed: Ray Data feeds the batches to a pool of engines, which write the vectors
themselves. Assemble: tasks gather each shard's vectors, wherever they are, and commit it whole. No process ever holds
more than a shard of vectors. Embeddings made elsewhere are matched to the items instead (`embed_precomputed`).
"""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import ray

from alphafuse.config import Config, EmbedConfig
from alphafuse.config.sections.resources import Resources
from alphafuse.errors import DataError, StaleError
from alphafuse.events import EmbeddingProgress, Listener, Progress, StageWarning, Summary
from alphafuse.language.plan import Plan, hash_array, make_plan
from alphafuse.language.precomputed import NO_VECTOR, PrecomputedFiles
from alphafuse.language.store import ITEM_COLUMNS, EmbeddingStore
from alphafuse.language.text_encoders.encoder import TextEncoder
from alphafuse.language.text_encoders.encoder_building import make_encoder
from alphafuse.stages import EMBED
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import resolve
from alphafuse.storage.filesystem.side_by_side import side_by_side
from alphafuse.storage.manifest import FileRecord, changed_inputs, fingerprint
from alphafuse.storage.workspace import Workspace
from jobs.execution.placement import SLIVER, require_places, task_options, task_slots
from jobs.execution.reporting.worker_metrics import Serving, serving
from jobs.execution.tasks import in_order, result
from jobs.stages.embed_engines import BatchResult, embed_on_engines, num_engines
from jobs.stages.embed_precomputed import bring_in_files, find_files


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Embed the catalog of a workspace with the engine of the configuration, or bring in its precomputed vectors.

    Returns:
        Summary of the stage; None where the embeddings were there already. `embed` and `bring_in` return the same.

    Raises:
        ConfigError: there is no such model.
        DataError: more items than `embed.max_quarantined` allows have no embedding, or precomputed files are bad.
        ResourceError: the cluster cannot hold the engines, or an engine does not start.
        WorkspaceError: there is no catalog, or the embeddings there, or those of the parent of an update, were made by
            another encoder.
    """
    if config.embed.engine == "precomputed":
        # A worker may have another current folder.
        files = find_files(config.embed, resolve(config.data.folder))
        return bring_in(files, config.embed, workspace, listen)
    encoder, identity = _encoder_of_the_workers(config.embed)
    donors = [] if config.update.parent is None else [workspace.other(config.update.parent).artifact("embeddings")]
    return embed(encoder, config.embed, workspace, listen, identity, serving(config), donors)


def embed(
    encoder: TextEncoder,
    config: EmbedConfig,
    workspace: Workspace,
    listen: Listener,
    identity: Mapping[str, Any] | None = None,
    serving: Serving | None = None,
    donors: Sequence[Artifact] = (),
) -> Summary | None:
    """Embed the catalog with `encoder`, a copy of which is started in each of `config.resources.workers` actors.

    Args:
        identity: identity of the encoder, as the workers see it; None: as this process sees it.
        serving: where the engines serve their metrics; None if they do not.
        donors: embeddings of other workspaces, whose vectors are taken over where the texts are equal.

    Raises:
        StaleError: another encoder made those of a donor.
    """
    identity = encoder.identity() if identity is None else identity
    for donor in donors:
        _require_same_encoder(donor, _described(identity, config))
    write_shards = functools.partial(_embed_texts, encoder, serving)
    return _make(identity, config, workspace, listen, write_shards, donors)


def bring_in(files: PrecomputedFiles, config: EmbedConfig, workspace: Workspace, listen: Listener) -> Summary | None:
    """Match vectors made elsewhere to the items of the catalog by id."""
    return _make(files.identity(), config, workspace, listen, functools.partial(_bring_in_vectors, files))


def _make(
    identity: Mapping[str, Any],
    config: EmbedConfig,
    workspace: Workspace,
    listen: Listener,
    write_shards: Callable[[EmbedConfig, Artifact, EmbeddingStore, Listener], dict[str, Any]],
    donors: Sequence[Artifact] = (),
) -> Summary | None:
    """Make the artefact `embeddings`; `write_shards` writes missing shards and returns details for the manifest."""
    started = time.monotonic()
    catalog = workspace.artifact("catalog")
    inputs = _inputs(identity, config, catalog)
    old = workspace.redo.reused("embeddings")
    replaced = [] if old is None else [Artifact(old, "embeddings", EMBED.name)]
    store = EmbeddingStore(workspace.artifact("embeddings"), inputs, [*replaced, *donors])
    store.adopt_stale_shards()
    if store.artifact.is_committed(inputs):
        store.discard_vectors()
        return None
    details = write_shards(config, catalog, store, listen)
    details["seconds"] = round(time.monotonic() - started, 3)
    return _finish(store, inputs, config, catalog.require().rows, details, listen)


def _embed_texts(
    encoder: TextEncoder,
    serving: Serving | None,
    config: EmbedConfig,
    catalog: Artifact,
    store: EmbeddingStore,
    listen: Listener,
) -> dict[str, Any]:
    finished = store.finished_shards()
    shards = [shard for shard in catalog.require().files if shard.name not in finished]
    hashes = side_by_side(lambda shard: hash_array(catalog.read_column(shard, "text_hash")), shards)
    known, known_hashes = store.known_vectors()
    plan = make_plan(known_hashes, hashes, config.texts_per_batch)
    del hashes, known_hashes
    batches = embed_on_engines(encoder, config, catalog, shards, store, plan.batches, listen, serving)
    speed, cut, written = _watch_batches(batches, config, catalog, plan, listen) if plan.batches else (None, 0, {})
    _assemble(config, catalog, shards, store, plan, known | written, listen)
    return {
        "distinct_texts": plan.distinct,
        "embedded": plan.to_embed,
        "reused": plan.distinct - plan.to_embed,
        "cut": cut,
        "texts_per_second": speed,
    }


def _bring_in_vectors(
    files: PrecomputedFiles, config: EmbedConfig, catalog: Artifact, store: EmbeddingStore, listen: Listener
) -> dict[str, Any]:
    return {"precomputed": bring_in_files(files, config, catalog, store, listen)}


def _encoder_of_the_workers(config: EmbedConfig) -> tuple[TextEncoder, Mapping[str, Any]]:
    """The encoder and its identity, made where the engines run: another machine may lack the engine or the model."""
    resources = config.resources
    require_places(EMBED.resources, resources)
    # A relative folder starts from this process's current folder; a worker may have another.
    model = os.path.abspath(config.model) if os.path.isdir(config.model) else config.model
    # The task reads the model's files and computes nothing: a GPU itself is left to others.
    beside = {"num_gpus": SLIVER} if resources.gpus else {}
    task = _make_encoder.options(**task_options(resources) | beside)
    return result(task.remote(config.model_copy(update={"model": model})))


@ray.remote
def _make_encoder(config: EmbedConfig) -> tuple[TextEncoder, Mapping[str, Any]]:
    encoder = make_encoder(config)
    return encoder, encoder.identity()


def _inputs(identity: Mapping[str, Any], config: EmbedConfig, catalog: Artifact) -> dict[str, Any]:
    return {"encoder": _described(identity, config), "catalog": catalog.require().fingerprint}


def _described(identity: Mapping[str, Any], config: EmbedConfig) -> dict[str, Any]:
    """Everything that a vector depends on beside its text."""
    return {**identity, "normalize": config.normalize, "storage_dtype": config.storage_dtype}


def _require_same_encoder(donor: Artifact, encoder: Mapping[str, Any]) -> None:
    made_by = donor.require().inputs["encoder"]
    if fingerprint(made_by) != fingerprint(encoder):
        raise StaleError(
            f"{donor.folder.uri} was made by another encoder ({'; '.join(changed_inputs(made_by, encoder)[:3])}), so "
            "that its model cannot be continued.",
            "Train from scratch, with `alphafuse run` and another `workspace`",
        )


def _watch_batches(
    batches: Iterable[BatchResult], config: EmbedConfig, catalog: Artifact, plan: Plan, listen: Listener
) -> tuple[float | None, int, dict[str, FileRecord]]:
    """Report every batch as it is done.

    Returns:
        Texts per second of all engines while they computed (None: they never did), the number of texts that were cut,
        and the records of the files with vectors by name.
    """
    done, failed, seconds, tokens, cut = plan.distinct - plan.to_embed, Counter[str](), 0.0, 0, 0
    engines, items = num_engines(config, plan.batches), catalog.require().rows
    examples: list[str] = []
    written: dict[str, FileRecord] = {}
    for batch in batches:
        written[batch.record.name] = batch.record
        done += batch.texts
        seconds += batch.seconds
        tokens += batch.tokens
        cut += batch.cut
        failed.update(batch.failed)
        examples = [*examples, *batch.examples][:3]
        fill = batch.texts / config.texts_per_batch
        listen(EmbeddingProgress(EMBED.name, done, plan.distinct, "texts", tokens, failed.total(), fill, engines))
        # Every text stands for at least one item: no need to embed the rest of a catalog that fails.
        _check_quarantined(failed, items, config, f"Examples: {', '.join(examples)}")
    if cut:
        message = f"{cut:,} texts lost their end, after embed.max_length {config.max_length} tokens (embed.long_texts)"
        listen(StageWarning(EMBED.name, message))
    speed = round(plan.to_embed * engines / seconds, 1) if seconds else None  # nothing computed: no text has content
    return speed, cut, written


def _assemble(
    config: EmbedConfig,
    catalog: Artifact,
    shards: Sequence[FileRecord],
    store: EmbeddingStore,
    plan: Plan,
    records: Mapping[str, FileRecord],
    listen: Listener,
) -> None:
    """Write the shards that the plan is about, as many at a time as the cluster has CPUs.

    Args:
        records: of all files of the plan.
    """
    if not shards:
        return
    dim = records[plan.files[0]].details["dim"]
    slots = task_slots(EMBED.resources, Resources())
    ends = np.cumsum([shard.rows for shard in shards])

    def submit(number: int) -> ray.ObjectRef:
        shard = shards[number]
        items = slice(ends[number] - shard.rows, ends[number])
        used, file = np.unique(plan.file[items], return_inverse=True)
        files = [(plan.files[index], records[plan.files[index]]) for index in used]
        dtype = config.storage_dtype
        return _assemble_shard.remote(catalog, store, shard, files, file, plan.row[items], dim, dtype)

    total = catalog.require().rows
    for end, _ in zip(ends, in_order(submit, range(len(shards)), slots), strict=True):
        done = total - int(ends[-1] - end)
        listen(Progress(EMBED.name, done, total, "items"))


@ray.remote
def _assemble_shard(
    catalog: Artifact,
    store: EmbeddingStore,
    shard: FileRecord,
    files: list[tuple[str, FileRecord]],
    file: np.ndarray,
    row: np.ndarray,
    dim: int,
    dtype: str,
) -> None:
    encoded = store.gather(files, file, row, dim, dtype)
    store.write_shard(shard.name, catalog.read_table(shard, ITEM_COLUMNS), shard.first_row, encoded)


def _check_quarantined(failed: Mapping[str, int], items: int, config: EmbedConfig, which: str) -> None:
    total = sum(failed.values())
    if total > config.max_quarantined * items:
        reasons = ", ".join(f"{category}: {count}" for category, count in sorted(failed.items()))
        raise DataError(
            f"at least {total} of {items} items cannot be embedded ({reasons}), more than embed.max_quarantined "
            f"{config.max_quarantined:g} allows. {which}. Correct their texts or vectors, or raise the limit: what is "
            "embedded is kept"
        )


def _finish(
    store: EmbeddingStore,
    inputs: Mapping[str, Any],
    config: EmbedConfig,
    items: int,
    details: Mapping[str, Any],
    listen: Listener,
) -> Summary:
    """Count and check the items of the shards, and commit; returns the summary of the stage."""
    shards = [record for record in store.artifact.committed_files(store.wanted).values() if record.rows]
    empty = sum(shard.details["empty"] for shard in shards)
    reasons: Counter[str] = sum((Counter(shard.details["quarantined"]) for shard in shards), Counter())
    _check_quarantined(reasons, items, config, f"They are listed in {store.artifact.folder.uri}/quarantine-*.parquet")
    quarantined = sum(reasons.values())
    if empty + quarantined == items:
        raise DataError(f"none of the {items} items has an embedding ({empty} texts are empty)")
    counts = {"items": items, "empty": empty, "quarantined": quarantined}
    if "precomputed" in details:
        counts["unknown_ids"] = details["precomputed"] - (items - reasons[NO_VECTOR])
    if quarantined:
        message = f"{quarantined} items have no embedding: {', '.join(f'{k}: {v}' for k, v in sorted(reasons.items()))}"
        listen(StageWarning(EMBED.name, message))
    summary = {**counts, **details, "dim": shards[0].details["dim"]}
    identity = {"encoder": inputs["encoder"], "quarantined_by_reason": dict(reasons)}
    store.artifact.commit(inputs, {**summary, **identity}, rows=items)
    store.discard_vectors()
    return summary
