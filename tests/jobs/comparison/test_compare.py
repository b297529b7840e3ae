"""A whole comparison on real Ray workers: shared stages, runs side by side, failures, and its results afterwards."""

from __future__ import annotations

import csv
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config, GridConfig, load_config, load_grid
from alphafuse.errors import ConfigError
from alphafuse.evaluation.comparison.method_comparison import Comparison
from alphafuse.events import Event, StageFailed, StageFinished, StageSkipped, ignore
from alphafuse.stages import EVALUATE, needed_stages
from alphafuse.storage.workspace import Workspace
from jobs.comparison import compare, shared_making
from jobs.pipeline import run_stages
from monitoring.run_log.event_log import read_events

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

NUM_ITEMS, NUM_USERS = 40, 30
METHODS: list[dict[str, Any]] = [
    {"name": "AlphaFuse"},
    {"name": "IDs", "set": {"model": {"encoder": {"name": "id"}}}},
    {"name": "too-wide", "set": {"model": {"encoder": {"name": "whitenrec"}}, "decompose": {"directions": 50}}},
    {"name": "too-many", "set": ["train.resources.workers=50", "model.encoder.name=id"]},
]
ENSEMBLES = [{"name": "both", "of": ["IDs", "AlphaFuse"]}, {"name": "hopeless", "of": ["IDs", "too-many"]}]


def _grid(folder: Path, **settings: Any) -> tuple[GridConfig, dict[str, Config]]:
    """Files of items with vectors and of a log, a base configuration and a grid over them, with settings of its own."""
    generator = np.random.default_rng(0)
    items = [f"item {number}" for number in range(NUM_ITEMS)]
    vectors = pa.array(list(generator.standard_normal((NUM_ITEMS, 12)).astype(np.float32)), pa.list_(pa.float32()))
    pq.write_table(pa.table({"item_id": items, "text": items, "embedding": vectors}), folder / "items.parquet")
    log = [(f"user {user}", str(item), time) for user in range(NUM_USERS) for time, item in enumerate(
        generator.choice(items, 6, replace=False)
    )]  # fmt: skip
    columns = zip(*log, strict=True)
    pq.write_table(pa.table(list(map(list, columns)), ["user_id", "item_id", "timestamp"]), folder / "log.parquet")
    base = {
        "workspace": "unused",
        "data": {
            "folder": str(folder),
            "catalog": {"path": "items.parquet"},
            "interactions": {"path": "log.parquet"},
            "split": {"cold_items": 0.1},
        },
        "embed": {"engine": "precomputed", "precomputed": "items.parquet"},
        "decompose": {"null_dim": 3, "method": "randomized"},
        "model": {"hidden_dim": 8, "history_length": 4},
        "train": {"max_epochs": 2, "loss": {"num_negatives": 6}},
    }
    grid = {"base": "base.yaml", "workspace": str(folder / "all"), "methods": METHODS, "ensembles": ENSEMBLES}
    grid |= {"seeds": [1, 2], "parallel": 3, "metrics": ["ndcg@10", "hr@5"], **settings}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid))
    return load_grid(folder / "grid.yaml")


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison, list[Event]]:
    """Folder of the grid, its comparison, and the events."""
    folder, events = tmp_path_factory.mktemp("grid"), list[Event]()
    comparison = compare.run(*_grid(folder), events.append)
    return folder, comparison, events


def _two_methods(folder: Path, *overrides: str) -> tuple[GridConfig, dict[str, Config]]:
    """The grid without the methods that fail."""
    grid, configs = load_grid(folder / "grid.yaml", overrides)
    grid = grid.model_copy(update={"methods": grid.methods[:2], "ensembles": grid.ensembles[:1]})
    return grid, {name: configs[name] for name in ("AlphaFuse", "IDs")}


def _metrics(folder: Path, run: str) -> dict[str, Any]:
    return json.loads((folder / "all" / run / "evaluation" / "metrics.json").read_text())["overall"]


def test_runs_end_in_one_table(finished: tuple[Path, Comparison, list[Event]]) -> None:
    folder, comparison, events = finished
    everything = list(csv.DictReader((folder / "all" / "comparison.csv").read_text().splitlines()))
    assert {row["slice"] for row in everything} >= {"", "items: tail", "histories: short"}
    table = [row for row in everything if not row["slice"]]
    assert {row["method"] for row in table if not row["mean"]} == {"too-wide", "too-many", "hopeless"}
    table = [row for row in table if row["mean"]]
    trained, baselines = table[:6], table[6:]
    assert [row["method"] for row in trained] == ["AlphaFuse"] * 2 + ["IDs"] * 2 + ["both"] * 2
    assert [row["method"] for row in baselines] == ["popularity"] * 2 + ["recent popularity"] * 2
    for row in trained:
        values = [_metrics(folder, f"{row['method']}-{seed}")[row["metric"]] for seed in (1, 2)]
        assert float(row["mean"]) == pytest.approx(statistics.mean(values))
        assert float(row["std"]) == pytest.approx(statistics.stdev(values))
    page = (folder / "all" / "comparison.md").read_text()
    assert "- cold items: 10% of the items are held out of training" in page
    assert (folder / "all" / "comparison.svg").exists()
    finished = {event.stage for event in events if isinstance(event, StageFinished)}
    assert {f"{row}-{seed}" for row in ("AlphaFuse", "IDs", "both") for seed in (1, 2)} <= finished
    assert comparison.reference == "AlphaFuse"
    logged = read_events(Workspace(str(folder / "all" / "both-1")), "evaluate")
    (ended,) = [event for event in logged if isinstance(event, StageFinished)]
    assert ended.summary["ndcg@20"] == pytest.approx(_metrics(folder, "both-1")["ndcg@20"])


def test_failures_are_named_and_stop_nothing(finished: tuple[Path, Comparison, list[Event]]) -> None:
    folder, comparison, events = finished
    assert {name.rpartition("-")[0] for name in comparison.failures} == {"too-wide", "too-many", "hopeless"}
    assert "exceeds the 12 dimensions" in comparison.failures["too-wide-1"]
    assert "asks for 50 workers" in comparison.failures["too-many-2"]
    assert comparison.failures["hopeless-1"] == "needs too-many-1"
    assert "- too-many-2: train.resources.workers asks for 50 workers" in (folder / "all" / "comparison.md").read_text()
    failed = {event.stage for event in events if isinstance(event, StageFailed)}
    assert failed == {"decompose", "too-many-1", "too-many-2"}


def test_data_are_prepared_once_and_with_one_seed(finished: tuple[Path, Comparison, list[Event]]) -> None:
    folder, _, events = finished
    shared = sorted(path.name.partition("-")[0] for path in (folder / "all" / "shared").iterdir())
    assert shared == ["decompose", "decompose", "embed", "prepare"]  # one decomposition failed
    ended = [event.stage for event in events if isinstance(event, StageFinished)]
    assert ended[:3] == ["prepare", "embed", "decompose"]
    runs = [Workspace(str(folder / "all" / name)) for name in ("AlphaFuse-1", "AlphaFuse-2", "IDs-2", "both-1")]
    assert len({run.artifact("sequences").require().fingerprint for run in runs}) == 1
    models = [run.artifact("model").require() for run in runs[:3]]
    assert [model.inputs["seed"] for model in models] == [1, 2, 2]
    assert not (folder / "all" / "AlphaFuse-1" / "catalog").exists()


def test_what_is_finished_is_skipped_and_what_is_lost_made_again(
    finished: tuple[Path, Comparison, list[Event]],
) -> None:
    folder, before, _ = finished
    Workspace(str(folder / "all" / "IDs-2")).artifact("evaluation").clear()
    events: list[Event] = []
    comparison = compare.run(*_two_methods(folder), events.append)
    kinds = {event.stage: type(event) for event in events if isinstance(event, StageFinished | StageSkipped)}
    assert kinds.pop("IDs-2") is StageFinished
    assert set(kinds.values()) == {StageSkipped}
    kept = [row.estimates for row in before.rows if row.estimates and row.seeds]
    assert [row.estimates for row in comparison.rows if row.seeds] == kept
    assert comparison.failures == {}


def test_other_settings_are_refused_with_what_to_do(finished: tuple[Path, Comparison, list[Event]]) -> None:
    path = finished[0] / "all" / "IDs-1" / "config.yaml"
    before = path.read_text()
    comparison = compare.run(*_two_methods(finished[0], "set.train.batch_size=11"), ignore)
    assert "train.batch_size: 64 → 11" in comparison.failures["IDs-1"]
    assert "make the row again: `alphafuse compare GRID --redo IDs`" in comparison.failures["IDs-1"]
    assert "alphafuse run" not in comparison.failures["IDs-1"]
    assert path.read_text() == before


def test_an_ensemble_can_be_made_again(finished: tuple[Path, Comparison, list[Event]]) -> None:
    grid, configs = _two_methods(finished[0])
    events: list[Event] = []
    compare.run(grid, configs, events.append, again=["both"])
    kinds = {event.stage: type(event) for event in events if isinstance(event, StageFinished | StageSkipped)}
    assert {run for run, kind in kinds.items() if kind is StageFinished} == {"both-1", "both-2"}


def test_a_comparison_whose_driver_was_killed_goes_on(
    finished: tuple[Path, Comparison, list[Event]], tmp_path: Path
) -> None:
    """SIGKILL in the middle of a grid; the next call does the rest, and gives the results of an undisturbed one."""
    _grid(tmp_path, methods=METHODS[:2], ensembles=[], seeds=[1], parallel=1)
    program = [
        sys.executable,
        "-c",
        "from cluster.cli.main import main; main()",
        "compare",
        str(tmp_path / "grid.yaml"),
    ]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
        table = tmp_path / "all" / "comparison.svg"  # the last of the three files
        deadline = time.monotonic() + 300
        while not table.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert re.search(r"^\| AlphaFuse +\|", (tmp_path / "all" / "comparison.md").read_text(), re.MULTILINE)
    assert not Workspace(str(tmp_path / "all" / "IDs-1")).artifact("model").manifest()
    events: list[Event] = []
    comparison = compare.run(*load_grid(tmp_path / "grid.yaml"), events.append)
    assert {type(event) for event in events if event.stage == "AlphaFuse-1"} == {StageSkipped}
    assert comparison.failures == {}
    trained = [row for row in comparison.rows if row.seeds]
    assert [row.name for row in trained] == ["AlphaFuse", "IDs"]
    for row in trained:
        undisturbed = _metrics(finished[0], f"{row.name}-1")
        assert _metrics(tmp_path, f"{row.name}-1") == undisturbed
        assert {metric: estimate.mean for metric, estimate in row.estimates.items()} == {
            metric: undisturbed[metric] for metric in ("ndcg@10", "hr@5")
        }


def test_a_method_whose_data_fail_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the shared stages is reported like any other failure; here in a method that is to be redone."""
    grid, configs = _grid(tmp_path, methods=METHODS[:2], ensembles=[], seeds=[1])
    model = Workspace(str(tmp_path / "all" / "AlphaFuse-1")).artifact("model")
    model.commit({"made by": "hand"})

    def disk_full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(shared_making, "run_stages", disk_full)
    events: list[Event] = []
    comparison = compare.run(grid, configs, events.append, again=["AlphaFuse"])
    assert comparison.failures == dict.fromkeys(["AlphaFuse-1", "IDs-1"], "prepare: OSError: no space left on device")
    assert model.manifest() is not None
    assert [event.stage for event in events if isinstance(event, StageFailed)] == ["prepare"]


def test_every_command_works_in_the_workspace_of_a_run(finished: tuple[Path, Comparison, list[Event]]) -> None:
    """The null space was drawn with the seed of the base, which the run's own configuration says."""
    config = load_config(finished[0] / "all" / "AlphaFuse-2" / "config.yaml")
    workspace, events = Workspace(config.workspace), list[Event]()
    run_stages(config, workspace, needed_stages(config, EVALUATE), events.append)
    ends = (StageFinished, StageSkipped, StageFailed)
    assert {type(event) for event in events if isinstance(event, ends)} == {StageSkipped}


def test_a_row_to_be_redone_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no row 'IDS' to be redone; rows: AlphaFuse, IDs, too-wide"):
        compare.run(*_grid(tmp_path), ignore, again=["IDS"])


@pytest.mark.parametrize(
    ("workers", "parallel", "expected"), [([1], 3, 3), ([1], 9, 4), ([2], 9, 2), ([1, 3], 9, 1), ([2, 50], 9, 2)]
)
def test_runs_side_by_side_have_room_for_all_of_their_workers(
    tmp_path: Path, workers: list[int], parallel: int, expected: int
) -> None:
    configs = [tiny_config(tmp_path, workers=number) for number in workers]
    assert compare.side_by_side(configs, parallel) == expected
