"""The stage `recommend`: top items for many users into Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pyarrow as pa
import ray
import torch

from alphafuse.config import Config
from alphafuse.data.catalog_lookup import find_ids
from alphafuse.data.importers.source import Source, identified
from alphafuse.data.users import Histories, find_users, test_users, users_of
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.evaluator import catalog_ranking
from alphafuse.evaluation.recommendations import Recommendations, rank_users
from alphafuse.events import Listener, Progress, StageWarning, Summary
from alphafuse.serving.deltas import find_deltas
from alphafuse.stages import RECOMMEND
from alphafuse.storage.filesystem.folder import resolve
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.execution.reporting.worker_metrics import serving
from jobs.execution.tasks import result
from jobs.execution.worker_group import run_workers

USERS_PER_SHARD = 10_000
EXAMPLES = 6


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Write the artefact `recommendations`: user_id, item_ids, titles and scores (lists, best first).

    Returns:
        Summary of the stage; None where the artefact was there already.
    """
    artifact = workspace.artifact("recommendations")
    users = config.recommend.users
    sources = None if users is None else result(_find_users.remote(resolve(users)))
    listed = None if sources is None else [source.identity for source in sources]
    inputs = {**RECOMMEND.inputs(config, workspace), "users": listed}
    if artifact.is_committed(inputs):
        return None
    removed = _removed_items(workspace)
    arguments = {"config": config, "workspace": workspace, "sources": sources, "removed": removed}
    arguments["wanted"] = fingerprint(inputs)
    counts = run_workers(RECOMMEND, _recommend_on_worker, config.train.resources, arguments, listen, serving(config))
    for reason, count in counts.items():
        if count:
            listen(StageWarning(RECOMMEND.name, f"{count} left out: {reason.replace('_', ' ')}"))
    files = artifact.committed_files(fingerprint(inputs)).values()
    total = sum(file.rows for file in files)
    examples = next(file.details["examples"] for file in files if file.first_row == 0)
    details = {"users": total, "top_k": config.recommend.top_k, "left_out": counts, "examples": examples}
    artifact.commit(inputs, details, rows=total)
    return {"users": total}


def _removed_items(workspace: Workspace) -> torch.Tensor:
    """Item indices of what `alphafuse add-items` has removed from the export of this model, int64."""
    # The export that is in use: where this stage is made again, a later one is pending, too.
    export, model = workspace.other(workspace.folder.uri).artifact("export"), workspace.artifact("model").require()
    made = export.manifest()
    if made is None or made.inputs.get("model") != model.fingerprint:
        return torch.empty(0, dtype=torch.int64)
    ids = [item for delta in find_deltas(export) for item in delta.removed()]
    found = find_ids(workspace.artifact("catalog"), pa.array(ids, pa.string())) if ids else {}
    return torch.tensor(sorted(found.values()), dtype=torch.int64)


@ray.remote(num_cpus=0)  # the ranks of the stages before it may hold every CPU
def _find_users(users: str) -> list[Source]:
    return identified(find_users(users))


def _recommend_on_worker(
    *,
    config: Config,
    workspace: Workspace,
    sources: list[Source] | None,
    removed: torch.Tensor,
    wanted: str,
    communicator: Communicator,
    device: torch.device,
    listen: Listener,
) -> dict[str, int]:
    """Every rank ranks its items for all users; the shards of the result are written in turns."""
    artifact = workspace.artifact("recommendations")
    written = artifact.committed_files(wanted)
    communicator.barrier()  # every rank has seen the same files before any is written
    model = load_trained(config, workspace, communicator, device)
    ranking = catalog_ranking(model, communicator, config.similarity)
    counts: Counter[str] = Counter()
    users = test_users(workspace) if sources is None else users_of(workspace, sources, counts)
    total = workspace.artifact("sequences").require().rows if sources is None else None
    done = 0
    for shard, (chunk, read) in enumerate(_chunks(users)):
        name = f"part-{shard:05d}.parquet"
        if name not in written:
            items, scores = rank_users(
                model,
                ranking,
                chunk,
                config.recommend.top_k,
                config.recommend.exclude_seen,
                config.evaluate.query_batch,
                communicator,
                removed,
            )
            if communicator.rank == shard % communicator.world_size:
                best = Recommendations(workspace.artifact("catalog"), chunk, items, scores)
                details = {"examples": best.examples(EXAMPLES)} if shard == 0 else None
                artifact.write_table(name, best.table, wanted, first_row=done, details=details)
        done += len(chunk.users)
        if communicator.rank == 0:
            listen(Progress(RECOMMEND.name, done if total is None else read, total, "users"))
    communicator.barrier()
    return dict(counts)


def _chunks(users: Iterable[Histories]) -> Iterator[tuple[Histories, int]]:
    """The users of one shard at a time, and how many of the log (or the file) have been read up to the last of them."""
    read = 0
    for histories in users:
        for chunk in histories.split(USERS_PER_SHARD):
            yield chunk, read + int(chunk.users[-1]) + 1
        read += histories.sequences.num_users
