"""Damages every file of a finished workspace in every way, and counts what survives.

    python -m benchmarks.damage --json runs/damage.json

Each case takes a whole small workspace, damages one file, and asks: does `verify` name the file? Does any command end
in a traceback, or give another result without an error? After `verify --repair` and `run`, are all results those of the
whole workspace, bit for bit? Stages that run on ranks run in this process, the others on a small Ray.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from alphafuse.config import Config, parse_config
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import AlphafuseError
from alphafuse.events import ignore
from alphafuse.stages import ARTIFACTS, EVALUATE, REPORT, STAGES
from alphafuse.storage.workspace import Workspace
from cluster.cli.run_tables import print_run, read_run
from cluster.cli.verifying import verify_workspace
from jobs.pipeline import run_stages
from jobs.stages import evaluate, export, prepare, recommend, train
from jobs.stages.recommend_history import recommend_for_history
from monitoring.report.run_facts import gather
from monitoring.run_log import heartbeat

ITEMS, USERS, DIM = 24, 30, 6
UNNAMED = {("events/heartbeat.json", "flipped")}
"""Damages that change one valid content into another, of files on which no result depends."""


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Flip one bit, which depends on the name of the file."""
    content = bytearray(path.read_bytes())
    place = random.Random(path.name).randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(bytes(content))


def garble(path: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(path.stat().st_size))


def delete(path: Path) -> None:
    path.unlink()


def exchange(path: Path) -> None:
    """Exchange a file with its sibling (see `sibling_of`)."""
    sibling = sibling_of(path)
    assert sibling is not None
    content = path.read_bytes()
    path.write_bytes(sibling.read_bytes())
    sibling.write_bytes(content)


def add_stray(path: Path) -> None:
    """Put a copy of a file beside it, under a name that looks like one of the program's."""
    stray_of(path).write_bytes(path.read_bytes())


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "emptied": empty,
    "flipped": flip,
    "garbled": garble,
    "deleted": delete,
    "exchanged": exchange,
    "stray": add_stray,
}


def stray_of(path: Path) -> Path:
    first, *rest = path.name.split(".")
    return path.with_name(".".join([f"{first}-9", *rest]))


def sibling_of(path: Path) -> Path | None:
    """Another file of the same kind, in the same folder or else in one beside it; None if there is none."""
    kinds = (".record.json", ".json", *path.suffixes[-1:])
    kind = next(kind for kind in kinds if path.name.endswith(kind))
    near = [other for other in sorted(path.parent.iterdir()) if _is_alike(other, path, kind)]
    far = sorted(path.parent.parent.glob(f"*/{path.name}"))
    later = [other for other in near or far if other > path] or [other for other in near or far if other < path]
    return later[0] if later else None


def _is_alike(other: Path, path: Path, kind: str) -> bool:
    same = other.name.endswith(kind) and (kind == ".record.json") == other.name.endswith(".record.json")
    return same and other.name.startswith("manifest") == path.name.startswith("manifest") and other.is_file()


@dataclasses.dataclass(frozen=True)
class Case:
    """One damage of one file, by its path in the workspace."""

    file: str
    damage: str


class DamagedRuns:
    """A finished workspace that is damaged and restored again and again.

    The process must be the only rank of a process group, and be connected to Ray.

    Args:
        folder: empty folder for sources, workspace and its copy.
    """

    def __init__(self, folder: Path) -> None:
        self.config = _write_sources(folder)
        self.path, self._whole = folder / "run", folder / "whole"
        with _on_this_process():
            run_stages(self.config, Workspace(str(self.path)), STAGES, ignore)
        shutil.copytree(self.path, self._whole)
        self._results = self._read_results()
        self._recommended = self._recommend()

    def cases(self) -> list[Case]:
        """All cases: every file in every way."""
        files = [str(path.relative_to(self._whole)) for path in sorted(self._whole.rglob("*")) if path.is_file()]
        return [
            Case(file, damage)
            for file in files
            for damage in DAMAGES
            if damage != "exchanged" or sibling_of(self._whole / file) is not None
        ]

    def restore(self) -> None:
        """Make the workspace whole again."""
        shutil.rmtree(self.path)
        shutil.copytree(self._whole, self.path)

    def failure(self, case: Case) -> str:
        """The failure of a case; empty if it is survived."""
        self.restore()
        path = self.path / case.file
        before = path.read_bytes()
        DAMAGES[case.damage](path)
        if case.damage == "exchanged" and path.read_bytes() == before:
            return ""  # both files are alike
        try:
            return self._live_through(case)
        except AlphafuseError as error:
            return f"is not cured: {error}"
        except Exception:
            return traceback.format_exc()

    def misread(self) -> str:
        """The failure of the commands that look at a damaged workspace; empty if every one gives the right result or an
        error that a user can cure."""
        for look in (self._status, self._page):
            with contextlib.suppress(AlphafuseError):
                look()
        with contextlib.suppress(AlphafuseError):
            if self._recommend() != self._recommended:
                return "other recommendations, without an error"
        return ""

    def names(self, file: str) -> bool:
        """Tell whether `verify` names a file."""
        return file in self._verify(repair=False)[0]

    def _live_through(self, case: Case) -> str:
        names = [str(path.relative_to(self.path)) for path in self._files_of(case)]
        if not any(map(self.names, names)) and (case.file, case.damage) not in UNNAMED:
            return f"verify does not name it:\n{self._verify(repair=False)[0]}"
        if wrong := self.misread():
            return wrong
        for command in (self._evaluate, self._report):
            with contextlib.suppress(AlphafuseError):
                command()
        with contextlib.suppress(AlphafuseError):
            metrics = Workspace(str(self.path)).artifact("evaluation").read_file("metrics.json")
            if metrics != self._metrics():
                return "other metrics, without an error"
        printed, error = self._verify(repair=True)
        if error:
            return f"verify --repair fails: {error}"
        self._run(STAGES)
        if self._read_results() != self._results:
            return "other results after repair and run"
        if self._recommend() != self._recommended:
            return "other recommendations after repair and run"
        printed, error = self._verify(repair=False)
        return f"verify finds something after repair and run: {printed}{error}" if error else ""

    def _files_of(self, case: Case) -> list[Path]:
        """The files of the workspace that a case changes or adds."""
        path = self.path / case.file
        if case.damage == "stray":
            return [stray_of(path)]
        sibling = sibling_of(self._whole / case.file) if case.damage == "exchanged" else None
        return [path] if sibling is None else [path, self.path / sibling.relative_to(self._whole)]

    def _verify(self, repair: bool) -> tuple[str, str]:
        """The output of `verify`, and its error."""
        with contextlib.redirect_stdout(io.StringIO()) as output, _on_this_process():
            try:
                verify_workspace(self.config, Workspace(str(self.path)), repair)
            except AlphafuseError as error:
                return output.getvalue(), str(error)
        return output.getvalue(), ""

    def _status(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            print_run(read_run(str(self.path)))

    def _page(self) -> None:
        gather(self.config.model_dump(mode="json"), Workspace(str(self.path)))

    def _recommend(self) -> Any:
        return recommend_for_history(self.config, Workspace(str(self.path)), ["item 1", "item 2"], 5)

    def _evaluate(self) -> None:
        self._run([EVALUATE])

    def _report(self) -> None:
        self._run([REPORT])

    def _run(self, stages: Sequence[Any]) -> None:
        with _on_this_process():
            run_stages(self.config, Workspace(str(self.path)), stages, ignore)

    def _metrics(self) -> bytes:
        return (self._whole / "evaluation" / "metrics.json").read_bytes()

    def _read_results(self) -> dict[str, dict[str, str]]:
        """Checksums of all files but the report's, which tells how long the stages took."""
        workspace = Workspace(str(self.path))
        names = [name for name, stage in ARTIFACTS.items() if stage is not REPORT]
        for name in names:
            workspace.artifact(name).verify()
        return {name: {file.name: file.sha256 for file in workspace.artifact(name).require().files} for name in names}


def _write_sources(folder: Path) -> Config:
    """Write a catalog, a log and vectors; returns the configuration of a run of all stages."""
    generator = np.random.default_rng(0)
    ids = [f"item {number}" for number in range(ITEMS)]
    pq.write_table(pa.table({"item_id": ids, "text": ids, "title": ids}), folder / "items.parquet")
    rows = [(f"user {user}", ids[item], float(t)) for user in range(USERS)
            for t, item in enumerate(generator.integers(ITEMS, size=8).tolist())]  # fmt: skip
    users, items, times = zip(*rows, strict=True)
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": times}), folder / "log.parquet")
    vectors = pa.array(list(generator.standard_normal((ITEMS, DIM)).astype(np.float32)), pa.list_(pa.float32()))
    pq.write_table(pa.table({"item_id": ids, "embedding": vectors}), folder / "vectors.parquet")
    return parse_config(
        {
            "workspace": str(folder / "run"),
            "data": {
                "folder": str(folder),
                "catalog": {"path": "items.parquet", "title": "title"},
                "interactions": {"path": "log.parquet"},
                "shard_rows": 9,
                "split": {"kind": "leave_one_out"},
            },
            "embed": {"engine": "precomputed", "precomputed": str(folder / "vectors.parquet")},
            "decompose": {"null_dim": 1},
            "model": {"hidden_dim": 4, "history_length": 4, "backbone": {"dropout": 0.0}},
            "train": {"batch_size": 20, "max_epochs": 1, "loss": {"num_negatives": 4}},
            "recommend": {"top_k": 3},
            "monitoring": {"targets": str(folder / "targets")},
        }
    )


@contextlib.contextmanager
def _on_this_process() -> Iterator[None]:
    """Context in which the stages that run on ranks run in this process, and write several shards."""

    def run_workers(stage: Any, function: Any, resources: Any, arguments: dict[str, Any], listen: Any, *_: Any,
                    **__: Any) -> Any:  # fmt: skip
        return function(communicator=Communicator(), device=torch.device("cpu"), listen=listen, **arguments)

    with contextlib.ExitStack() as stack:
        for job in (train, evaluate, recommend, export):
            stack.enter_context(mock.patch.object(job, "run_workers", run_workers))
        stack.enter_context(mock.patch.object(heartbeat, "LOST_SECONDS", 0.1))  # nobody else works there
        stack.enter_context(mock.patch.object(prepare, "BUCKET_BYTES", 1000))
        stack.enter_context(mock.patch.object(recommend, "USERS_PER_SHARD", 11))
        stack.enter_context(mock.patch.object(export, "ITEMS_PER_SHARD", 9))
        yield


@contextlib.contextmanager
def damaged_runs() -> Iterator[DamagedRuns]:
    """A finished workspace to be damaged, with all that it needs: a small Ray, and a process group of this process."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK="0")
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        yield DamagedRuns(Path(folder))
        torch.distributed.destroy_process_group()
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the counts")
    parser.add_argument("--every", type=int, default=1, help="take every n-th case only")
    options = parser.parse_args()
    with damaged_runs() as runs:
        started = time.monotonic()
        tried: Counter[str] = Counter()
        survived: Counter[str] = Counter()
        for case in runs.cases()[:: options.every]:
            tried[case.damage] += 1
            failure = runs.failure(case)
            survived[case.damage] += not failure
            if failure:
                print(f"{case.file} {case.damage}: {failure}", flush=True)
    counts = {damage: f"{survived[damage]} of {tried[damage]}" for damage in tried}
    counts["all"] = f"{survived.total()} of {tried.total()}"
    print(json.dumps(counts, indent=1), f"in {time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
