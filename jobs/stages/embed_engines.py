"""The pool of embedding engines of the stage `embed`: Ray Data hands batches of texts to actors that write the vectors.

Knows how engines are placed, fed and restarted; the stage knows what a batch is for.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning
from ray.util.queue import Queue

from alphafuse.config import EmbedConfig
from alphafuse.errors import AlphafuseError, ResourceError
from alphafuse.events import (
    BatchEmbedded,
    Event,
    Listener,
    StageWarning,
    WorkerServing,
    WorkersGone,
    WorkersRestarted,
)
from alphafuse.language.canaries import canary_vectors, require_same_engine
from alphafuse.language.plan import Batch
from alphafuse.language.store import EmbeddingStore
from alphafuse.language.text_encoders.encoder import EMPTY, TextEncoder, encode_texts, failures_by_category
from alphafuse.language.text_encoders.one_engine import OneEngine
from alphafuse.stages import EMBED
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import FileRecord, read_record, to_json
from jobs.execution.elasticity import alive_machines, await_places
from jobs.execution.placement import beside_this_process, require_places, task_options
from jobs.execution.reporting.event_relay import EventRelay, event_queue
from jobs.execution.reporting.worker_metrics import Serving, worker_listener

_BATCH_RETRIES = 3
"""Times that a batch is repeated whose engine died; the next death ends the job."""


@dataclass(frozen=True)
class BatchResult:
    """Report of an engine on a batch that it has written."""

    record: FileRecord
    """Record of its file with vectors."""
    texts: int
    tokens: int
    """Number of tokens that the engine read."""
    cut: int
    """Number of texts that were too long and lost their end."""
    seconds: float
    """Time that the engine computed."""
    failed: dict[str, int]
    """Number of texts without a vector, by category of the reason."""
    examples: list[str]
    """Some of those texts, with their reasons."""


def num_engines(config: EmbedConfig, batches: Sequence[Batch]) -> int:
    """Number of engines that are started: never more than there are batches."""
    return min(config.resources.workers, len(batches))


def embed_on_engines(
    encoder: TextEncoder,
    config: EmbedConfig,
    catalog: Artifact,
    shards: Sequence[FileRecord],
    store: EmbeddingStore,
    batches: Sequence[Batch],
    listen: Listener,
    serving: Serving | None,
) -> Iterator[BatchResult]:
    """Embed batches of the catalog's texts and write them to the store; yields as batches are done, in any order.

    An engine that is killed is started again by Ray and its batch repeated, which gives the same file. When a machine
    is lost, the batches that are left are embedded on the other machines.

    Args:
        shards: shards of the catalog that the batches were planned for.
        listen: hears of engines that were started again, and of where engines serve their metrics.
        serving: where engines serve their metrics; None if they do not.

    Raises:
        ResourceError: no such engines fit on the cluster, or a batch has taken its engine down too often.
        AlphafuseError: as raised by the engine.
    """
    if not batches:
        return
    require_places(EMBED.resources, config.resources, num_engines(config, batches))
    _configure_ray_data()
    left, failures = {batch.file: batch for batch in batches}, 0
    with event_queue() as queue, EventRelay(_EngineEvents(listen), queue):
        canaries = _Canaries.options(scheduling_strategy=beside_this_process()).remote(store)  # type: ignore[attr-defined]
        engine = encoder, store, config, queue, serving, canaries
        while left:
            machines, before = alive_machines(), len(left)
            rows = [_row(batch, shards[batch.shard]) for batch in left.values()]
            try:
                for row in _embed(rows, catalog, config, engine, num_engines(config, list(left.values()))):
                    del left[row["file"]]
                    failed, examples = dict(Counter(row["failed"])), list(row["examples"])
                    record = read_record(row["record"], row["file"])
                    yield BatchResult(record, row["texts"], row["tokens"], row["cut"], row["seconds"], failed, examples)
            except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError) as error:
                # Ray raises the same error for an engine whose machine is gone as for one that died again and again.
                await_places(EMBED.name, EMBED.resources, config.resources, 1, listen)
                failures = 1 if len(left) < before else failures + 1
                if machines <= alive_machines() or failures > _BATCH_RETRIES:
                    raise ResourceError(
                        f"an embedding engine died {_BATCH_RETRIES + 1} times in the same batch; most often its "
                        "machine is out of memory: lower embed.resources.workers, embed.batch_size or "
                        "embed.max_length. What is embedded is kept. The engine's last messages are in the worker "
                        "logs of Ray"
                    ) from error
                listen(StageWarning(EMBED.name, "a machine with an embedding engine is lost; others go on"))
            finally:
                if serving is not None:
                    queue.put(WorkersGone(EMBED.name))


def _row(batch: Batch, shard: FileRecord) -> dict[str, Any]:
    """A batch as a row of a data set."""
    return {"file": batch.file, "shard": shard.name, "shard_record": to_json(shard), "rows": batch.rows.tobytes()}


def _embed(
    rows: list[dict[str, Any]], catalog: Artifact, config: EmbedConfig, engine: tuple[Any, ...], engines: int
) -> Iterator[dict[str, Any]]:
    """Embed batches on engines that are started for them, each made from the arguments `engine`."""
    # Reading asks for no CPU: the engines may have taken all of them.
    texts = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        functools.partial(_read_texts, catalog=catalog),
        compute=ray.data.TaskPoolStrategy(size=engines),
        num_cpus=0,
    )
    with warnings.catch_warnings():
        # There is no other way to set max_task_retries; Ray announces that this one ends in 2.64.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        results = texts.map(
            _Engine,  # type: ignore[arg-type]  # the annotation leaves out callable classes
            fn_constructor_args=engine,
            compute=ray.data.ActorPoolStrategy(
                size=engines, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True
            ),
            **task_options(config.resources),
            max_task_retries=_BATCH_RETRIES,
        )
        yield from _rows(results)


@ray.remote(num_cpus=0)
class _Canaries:
    """Holds the vectors of the canaries that the first engine has computed, now or in a run that was interrupted."""

    def __init__(self, store: EmbeddingStore) -> None:
        self.store = store
        self.known: np.ndarray | None = None

    def first(self, vectors: np.ndarray) -> np.ndarray:
        """The first engine's vectors; those that are given where there are none."""
        if self.known is None:
            known = self.store.canaries()
            self.known = vectors if known is None else known
            self.store.write_canaries(self.known)
        return self.known


class _EngineEvents:
    """A listener that passes on the events of engines, with numbers in place of Ray's names, and counts restarts."""

    def __init__(self, listen: Listener) -> None:
        self._listen = listen
        self._numbers: dict[str | None, str] = {}
        self._restarts = 0

    def __call__(self, event: Event) -> None:
        match event:
            case WorkerServing():
                event = dataclasses.replace(event, worker=self._number(event.worker))
            case WorkersRestarted():
                self._restarts += event.restarts
                event = dataclasses.replace(event, worker=self._number(event.worker), restarts=self._restarts)
        self._listen(event)

    def _number(self, worker: str | None) -> str:
        return self._numbers.setdefault(worker, str(len(self._numbers)))


def _read_texts(row: dict[str, Any], catalog: Artifact) -> dict[str, Any]:
    """The texts of a batch and their hashes."""
    shard, rows = read_record(row["shard_record"], row["shard"]), np.frombuffer(row["rows"], np.int32)
    table = catalog.take_rows(shard, rows, ["text", "text_hash"])
    return {"file": row["file"], "texts": table["text"].to_pylist(), "hashes": table["text_hash"].to_pylist()}


class _Engine:
    """An actor of the pool: an encoder that writes what it embeds.

    Two threads call it. While the encoder computes for one of them, the other one writes the batch before it and cuts
    the texts of the next. The encoder starts with the first batch and not before: Ray names no cause for an actor that
    fails in its making.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        store: EmbeddingStore,
        config: EmbedConfig,
        events: Queue,
        serving: Serving | None,
        canaries: ray.actor.ActorHandle,
    ) -> None:
        self.encoder = OneEngine(encoder)
        self.store = store
        self.index = store.index()
        self.config = config
        self.events = events
        self.serving = serving
        self.canaries = canaries
        self.starting = threading.Lock()
        self.report: Listener | None = None
        self.kept = ExitStack()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        with self.starting:
            report = self.report = self.report or self._start()
        encoded = encode_texts(self.encoder, list(row["texts"]), self.config.normalize, self.config.storage_dtype)
        hashes = pa.array(list(row["hashes"]), pa.binary(16))
        record = self.store.write_vectors(row["file"], hashes, encoded, self.index)
        failed = failures_by_category(encoded.failures)
        facts: dict[str, Any] = {"texts": len(row["texts"]), "tokens": encoded.tokens, "seconds": encoded.seconds}
        fill = len(row["texts"]) / self.config.texts_per_batch
        report(BatchEmbedded(EMBED.name, **facts, fill=fill, retries=encoded.retries, failed=failed))
        return {
            **facts,
            "file": row["file"],
            "record": to_json(record),
            "cut": encoded.cut,
            "failed": list(Counter(failed).elements()),
            "examples": [
                f"{row['texts'][position][:60]!r} ({reason})"
                for position, reason in encoded.failures.items()
                if reason != EMPTY
            ][:3],
        }

    def _start(self) -> Listener:
        """Load the model, compare it with the first engine's, and serve metrics until the process ends."""
        context = ray.get_runtime_context()
        name = str(context.get_actor_id())
        if context.was_current_actor_reconstructed:
            message = "an embedding engine died and was started again; its batch is repeated"
            self.events.put(WorkersRestarted(EMBED.name, message, restarts=1, worker=name))
        self.encoder.start()
        vectors = canary_vectors(self.encoder)
        reference: Any = ray.get(self.canaries.first.remote(vectors))
        require_same_engine(vectors, reference, socket.gethostname())
        return self.kept.enter_context(worker_listener(EMBED.name, name, self.serving, self.events.put))


def _configure_ray_data() -> None:
    """Have Ray Data raise errors as they are, and keep it off the console, where progress is shown by events."""
    context = ray.data.DataContext.get_current()
    context.raise_original_map_exception = True
    context.enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)  # the log file of Ray Data still gets everything


def _rows(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data set; an `AlphafuseError` in a worker is raised as itself."""
    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, AlphafuseError):
            raise cause from error
        raise
