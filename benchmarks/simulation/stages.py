"""The work of every stage of a run, in counts: what each process holds, sends, reads and writes.

Counts come from the project's own code where it decides them: ranges of rows, files of checkpoints, steps, batches,
sizes of blocks, buckets, runs and tiles. Everything else is a number of units (`units`) or of operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from alphafuse.config import EmbedConfig, EvaluateConfig
from alphafuse.config.sections.resources import EngineResources
from alphafuse.data.preparation.scratch import RUN_BYTES
from alphafuse.data.sequence_store import GROUP_USERS
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.storage.record_index import FULL_BYTES
from alphafuse.training.checkpoints.table_rows import row_files
from benchmarks.simulation.cost_model import Machine, Phase, Work, beside_one_another, commits, reads_groups, writes
from benchmarks.simulation.training_steps import PlayedTraining
from benchmarks.simulation.units import ITEMS, Unit

GROUP_ROWS = 8192
"""Rows of a row group, as `RecordedFiles.write_table` cuts them."""
BUCKET_BYTES = 32 * 2**20
"""Bytes of the sources for each bucket (`jobs.stages.prepare`)."""
BATCH = EmbedConfig(resources=EngineResources(gpus=1)).texts_per_batch
INPUT_BYTES = 135
"""Bytes of a rank for each interaction of its share of the buffer, measured by `benchmarks.input`."""
FLOAT64_PRODUCTS = 3e10
"""Operations of a core's float64 products a second, measured by `benchmarks.decompose`."""
COUNTING_PASSES = 5
"""Times that scores are written or read in a ranking with lists: by the product, by the lists, and three by counts."""


@dataclass(frozen=True)
class Run:
    """Sizes of a run, and what was measured of it.

    Attributes:
        items, users, mean_length: items of the catalog, users of the log, and their mean number of interactions.
        ranks: ranks, and workers of the stages before them, each with a core.
        dim, hidden_dim, null_dim: dimensions of embeddings, item vectors and trainable part.
        tokens, weights: tokens of a text, and weights of the language model.
        validated, tested: queries of a validation and of the evaluation.
        units: costs of units.
        training: played steps.
        growth: host bytes for each item of the catalog that a rank of the evaluation holds, whatever its share.
    """

    items: int
    users: int
    mean_length: int
    ranks: int
    dim: int
    hidden_dim: int
    null_dim: int
    tokens: int
    weights: float
    validated: int
    tested: int
    units: dict[str, Unit]
    training: PlayedTraining
    growth: float

    @property
    def interactions(self) -> int:
        return self.users * self.mean_length

    @property
    def shards(self) -> int:
        return math.ceil(self.items / ITEMS)

    @property
    def most_rows(self) -> int:
        """Rows of the rank that has most."""
        ranges = (RowPartition(self.items, self.ranks).range(rank) for rank in range(self.ranks))
        return max(stop - start for start, stop in ranges)

    def share(self, name: str, count: float) -> Work:
        """A worker's share of `count` units."""
        unit = self.units[name]
        return Work(cpu=unit.cpu * count / self.ranks)


def phases(run: Run, machine: Machine) -> Iterator[Phase]:
    """Yield the parts of all stages."""
    yield from _prepare(run)
    yield from _embed(run, machine)
    yield from _decompose(run)
    yield from _train(run, machine)
    yield from _evaluate(run, machine)
    yield from _export(run)


def _prepare(run: Run) -> Iterator[Phase]:
    units, workers, n, m = run.units, run.ranks, run.items, run.interactions
    source, memory = n * units["source item"].stored, n * units["item in memory"].stored
    runs, buckets = math.ceil(memory / RUN_BYTES), math.ceil(source / BUCKET_BYTES)
    partition = run.share("partition item", n) + Work(stored=source / workers)
    run_bytes = n * units["partition item"].stored / runs
    yield Phase("prepare", "catalog into runs", "each task", partition + writes(runs / workers, run_bytes), host=2**27)
    parts = Work(requests=3 * runs, waits=3 * runs, stored=runs * run_bytes / buckets) * (buckets / workers)
    sort = run.share("sort item", n) + parts
    yield Phase("prepare", f"{buckets} buckets of {runs} runs", "each task", sort, host=2 * memory / buckets)
    shard = ITEMS * units["write item"].stored
    write = run.share("write item", n) + writes(run.shards / workers, shard)
    yield Phase("prepare", f"{run.shards} shards", "each task", write)
    yield Phase("prepare", "commit of the catalog", "driver", commits(run.shards, looks=2))
    ids = beside_one_another(reads_groups(run.shards, math.ceil(ITEMS / GROUP_ROWS), 14 * ITEMS))
    hashing = Work(cpu=n * units["hash item"].cpu) + ids
    yield Phase("prepare", "hashes of all items", "one task", hashing, host=16 * n)

    source = m * units["source interaction"].stored
    memory, buckets = 40 * m, math.ceil(source / BUCKET_BYTES)
    runs = math.ceil(memory / RUN_BYTES)
    partition = run.share("partition interaction", m) + Work(stored=source / workers)
    run_bytes = m * units["partition interaction"].stored / runs
    yield Phase("prepare", "log into runs", "each task", partition + writes(runs / workers, run_bytes), host=8 * n)
    parts = Work(requests=3 * runs, waits=3 * runs, stored=runs * run_bytes / buckets) * (buckets / workers)
    group = run.share("group interaction", m) + parts
    yield Phase("prepare", f"{buckets} buckets of {runs} runs", "each task", group, host=3 * memory / buckets)
    size = m * units["read interaction"].stored / buckets
    write = run.share("write interaction", m) + writes(buckets / workers, size)
    yield Phase("prepare", f"{buckets} shards of sequences", "each task", write)
    yield Phase("prepare", "commit of the sequences", "driver", commits(buckets, looks=2))
    groups = math.ceil(run.users / GROUP_USERS)
    whole = reads_groups(groups, 1, size * buckets / groups)
    counting = Work(cpu=m * units["count interaction"].cpu) + whole
    yield Phase("prepare", "popularity", "one task", counting, host=24 * n)


def _embed(run: Run, machine: Machine) -> Iterator[Phase]:
    units, workers, n = run.units, run.ranks, run.items
    batches, groups = math.ceil(n / BATCH), math.ceil(ITEMS / GROUP_ROWS)
    plan = Work(cpu=n * units["plan item"].cpu) + beside_one_another(reads_groups(run.shards, groups, 16 * ITEMS))
    yield Phase("embed", f"plan of {batches} batches", "driver", plan, host=72 * n)
    products = 2 * run.weights * run.tokens * n / workers * machine.products / machine.encoder_products
    batch = writes(batches / workers, BATCH * units["write vector"].stored) + run.share("write vector", n)
    batch += Work(stored=batches / workers * FULL_BYTES / 2)  # the index of the engine, which grows to that size
    texts = reads_groups(batches / workers, 2, BATCH * 200.0)
    engine = Phase("embed", "engines", "each engine", Work(products=products) + batch, texts, card=2 * run.weights)
    yield engine
    files = ITEMS / BATCH
    gather = reads_groups(files, 1, BATCH * 2.0 * run.dim) * (run.shards / workers)
    shard = writes(run.shards / workers, ITEMS * units["assemble vector"].stored)
    assemble = run.share("assemble vector", n) + gather + shard
    yield Phase("embed", f"{run.shards} shards", "each task", assemble, host=4.0 * ITEMS * run.dim)
    yield Phase("embed", "commit", "driver", commits(run.shards, looks=2))


def _decompose(run: Run) -> Iterator[Phase]:
    units, workers, n, d = run.units, run.ranks, run.items, run.dim
    groups, size = math.ceil(ITEMS / GROUP_ROWS), ITEMS * units["assemble vector"].stored
    reading = reads_groups(run.shards / workers, groups + 4, size)  # the manifest, and the file is opened twice
    moments = run.share("add vector to moments", n)
    partials = min(run.shards, 256)  # MAX_PARTIALS of jobs.stages.decompose
    yield Phase("decompose", "moments", "each task", moments, reading, host=4 * 8.0 * d * d + 3 * 2**26)
    merge = Work(cpu=partials * 5 * d * d / 1e9, host_sent=partials * 8.0 * d * d)
    yield Phase("decompose", f"{partials} partial results", "driver", merge, host=3 * 8.0 * d * d)
    yield Phase("decompose", "eigenvectors", "one task", Work(cpu=9 * d**3 / FLOAT64_PRODUCTS), host=24.0 * d * d)
    projected = Work(cpu=2.0 * n * d * run.hidden_dim / workers / FLOAT64_PRODUCTS)
    project = run.share("write features", n) + projected
    project += writes(run.shards / workers, ITEMS * units["write features"].stored)
    yield Phase("decompose", "features", "each task", project, reading, host=2 * ITEMS * 4.0 * run.hidden_dim)
    yield Phase("decompose", "commit", "driver", commits(run.shards, looks=2))


def checkpoint_files(items: int, null_dim: int, rank: int, ranks: int) -> list[int]:
    """Bytes of the files of a rank in a checkpoint, as the project cuts them; no memory is used for them."""
    start, stop = RowPartition(items, ranks).range(rank)
    tensor = torch.empty(stop - start, null_dim, device="meta")
    tensors = dict.fromkeys(("rows", "first_moment", "second_moment"), tensor)
    return [len(file.memory) for file in row_files(start, tensors)]


def step(run: Run) -> tuple[Work, Work]:
    """Work of a step on the card and between cards, and that of the threads beside it; of the slowest rank in each."""
    played, dense, ranks = run.training, run.training.dense, run.ranks
    counted = [rank for step in played.steps for rank in step]
    moved = max(max(rank.sent - rank.sent_by_hosts, rank.received) for rank in counted)
    dense_bytes = 4 * dense.weights * 2 * (ranks - 1) / ranks
    lookups = 3 * 4 * max(rank.touched for rank in counted) * (run.hidden_dim + 6 * run.null_dim)
    card = Work(dense.operations, dense.bytes - dense.scores + lookups)
    network = Work(sent=moved + dense_bytes, messages=2 * (ranks - 1) + 2 * math.ceil(math.log2(ranks)))
    planning = sorted(rank.planning for rank in counted)[len(counted) // 2]
    samples = max(rank.samples for rank in counted)
    decoding = run.interactions * run.units["read interaction"].cpu / ranks / played.steps_per_epoch
    cpu = planning + samples * played.cutting + decoding
    by_hosts = max(rank.sent_by_hosts for rank in counted)
    messages = 2 * (ranks - 1) + 2 * math.ceil(math.log2(ranks))
    return card + network, Work(cpu=cpu, host_sent=by_hosts, host_messages=messages if ranks > 1 else 0)


def _train(run: Run, machine: Machine) -> Iterator[Phase]:
    units, rows, steps = run.units, run.most_rows, run.training.steps_per_epoch
    table, encoded = max(run.training.table_bytes), 4.0 * rows * run.hidden_dim
    files, groups = rows / ITEMS + 1, rows / GROUP_ROWS
    build = Work(requests=4 * files + groups, waits=4 * files + groups, stored=rows * units["write features"].stored)
    yield Phase("train", "the table", "each rank", build, card=table)
    log = run.interactions * units["read interaction"].stored
    buffer = run.interactions / run.users * min(run.users / run.ranks, 125_000) * INPUT_BYTES
    cards, hosts = step(run)
    yield Phase("train", "a step, cards", "each rank", cards, card=table)
    yield Phase("train", "a step, its plan beside it", "each rank", hosts, host=buffer)
    blocks = math.ceil(run.users / GROUP_ROWS / run.ranks * 1.15)
    reading = reads_groups(blocks, 1, 1.15 * log / run.ranks / blocks)
    slower = max((cards, hosts), key=lambda work: sum(machine.seconds(work).values()))
    yield Phase("train", f"an epoch of {steps} steps", "each rank", slower * steps, reading, buffer, table)
    checkpoint = [checkpoint_files(run.items, run.null_dim, rank, run.ranks) for rank in range(run.ranks)]
    most = max(checkpoint, key=sum)
    saved = sum((writes(1, size) for size in most), Work())
    yield Phase("train", "a checkpoint", "each rank", saved, host=sum(most))
    count = sum(map(len, checkpoint)) + 1
    yield Phase("train", "commit of a checkpoint", "first rank", commits(count))
    groups = math.ceil(run.users / GROUP_USERS)
    whole = Work(cpu=run.interactions * units["read interaction"].cpu) + reads_groups(groups, 1, log / groups)
    products = 2.0 * run.validated * rows * run.hidden_dim
    kept = 8.0 * run.validated * run.interactions / run.users
    yield Phase("train", "users of the validation, once", "each rank", whole, host=kept)
    ranking = _ranking(run, run.validated, products, 0)
    yield Phase("train", f"a validation of {run.validated:,}", "each rank", ranking, host=kept, card=table + encoded)


def _ranking(run: Run, queries: int, products: float, lists: int) -> Work:
    """Work of ranking: hidden states and vectors of targets travel, and lists of each rank."""
    batches = math.ceil(queries / EvaluateConfig().query_batch)
    others = run.ranks - 1
    sent = queries * 4 * run.hidden_dim * (others / run.ranks + 2) + queries * 12.0 * lists * others
    card_bytes = 4.0 * queries * run.most_rows * COUNTING_PASSES if lists else 0.0
    return Work(products, card_bytes, sent, messages=batches * 5 * math.ceil(math.log2(max(2, run.ranks))))


def _evaluate(run: Run, machine: Machine) -> Iterator[Phase]:
    units, rows, n = run.units, run.most_rows, run.items
    model = Work(stored=rows * (units["write features"].stored + 4.0 * run.null_dim), requests=rows / GROUP_ROWS)
    table = 4.0 * rows * (run.hidden_dim + run.null_dim)
    yield Phase("evaluate", "the model", "each rank", model, host=run.growth * n, card=table)
    exact = 2.0 * run.tested * rows * run.hidden_dim * machine.products / machine.exact_products
    ranking = _ranking(run, run.tested, exact, max(EvaluateConfig().cutoffs))
    log, groups = run.interactions * units["read interaction"].stored, math.ceil(run.users / GROUP_USERS)
    whole = Work(cpu=run.interactions * units["read interaction"].cpu) + reads_groups(groups, 1, log / groups)
    held = table + 4.0 * rows * run.hidden_dim
    yield Phase("evaluate", f"{run.tested:,} queries", "each rank", ranking, whole, host=run.growth * n, card=held)


def _export(run: Run) -> Iterator[Phase]:
    units, rows = run.units, run.most_rows
    files = math.ceil(rows / ITEMS)
    cpu = Work(cpu=rows * (units["export item"].cpu + units["export vector"].cpu))
    names = reads_groups(files * 2, 2 * math.ceil(ITEMS / GROUP_ROWS), ITEMS * 40.0)
    saved = writes(files, ITEMS * units["export item"].stored) + writes(files, ITEMS * units["export vector"].stored)
    held = 4.0 * rows * (run.hidden_dim + run.null_dim)
    yield Phase(
        "export", f"{2 * files} files", "each rank", cpu + names + saved, host=4.0 * rows * run.hidden_dim, card=held
    )
    yield Phase("export", "commit", "driver", commits(2 * files * run.ranks + 2))
