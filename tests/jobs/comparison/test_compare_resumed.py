"""Comparisons of runs that exist already; the runs are made by hand, without Ray."""

from __future__ import annotations

import contextlib
import json
import pickle
import queue
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config, GridConfig
from alphafuse.errors import StaleError
from alphafuse.evaluation.comparison.method_comparison import Comparison
from alphafuse.evaluation.ranks import FILE, SCHEMA
from alphafuse.events import Event, Listener, StageFailed, StageSkipped
from alphafuse.stages import EVALUATE, TRAIN
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from jobs.comparison import compare, grid_runs
from jobs.comparison.ensemble_evaluation import ensemble_inputs
from jobs.comparison.grid_runs import Run, method_runs
from jobs.stages import train
from jobs.stages.evaluate import METRICS_FILE
from monitoring.run_log.heartbeat import own

ROWS = {"AlphaFuse": 0.75, "IDs": 0.25, "both": 0.5}  # hr@10
RESULT: dict[str, Any] = {
    "split": "test",
    "similarity": "cosine",
    "exclude_seen": True,
    "queries": 4,
    "num_items": 30,
    "slices": {},
}


@pytest.fixture
def grid(tmp_path: Path) -> GridConfig:
    return GridConfig(
        base="unused",
        workspace=str(tmp_path),
        methods=({"name": "AlphaFuse"}, {"name": "IDs"}),
        ensembles=({"name": "both", "of": ("IDs", "AlphaFuse")},),
        seeds=(1, 2),
        metrics=("hr@10",),
    )


@pytest.fixture
def configs(tmp_path: Path) -> dict[str, Config]:
    return {name: tiny_config(tmp_path) for name in ("AlphaFuse", "IDs")}


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are carried out, each of which leaves its results; nothing is shared or borrowed."""
    names: list[str] = []

    def carry_out(
        runs: Sequence[Run], parallel: int, listen: Listener, failures: dict[str, str], finish: Callable[[str], object]
    ) -> None:
        for run in runs:
            names.append(run.name)
            _make(run)
            finish(run.name)

    monkeypatch.setattr(compare, "connected", lambda config: contextlib.nullcontext())
    monkeypatch.setattr(compare, "require_shared", lambda workspace: None)
    monkeypatch.setattr(compare, "make_shared", lambda configs, folder, listen: {})
    monkeypatch.setattr(compare, "borrow", lambda workspace, config: None)
    monkeypatch.setattr(compare, "_carry_out", carry_out)
    return names


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace before its training."""
    folder = tmp_path_factory.mktemp("prepared")
    tiny_workspace(folder)
    return folder


@pytest.fixture
def finished(grid: GridConfig, configs: dict[str, Config], carried_out: list[str], prepared: Path) -> Comparison:
    """The whole comparison."""
    for run in method_runs(grid, configs):
        shutil.copytree(prepared, run.config.workspace)
    comparison = compare.run(grid, configs, lambda event: None)
    carried_out.clear()
    return comparison


def _make(run: Run) -> None:
    """Write the evaluation of a run, and its model if there is none."""
    with own(run.workspace) as heartbeat:
        workspace = run.workspace.guarded(heartbeat.guard)
        model, evaluation = workspace.artifact("model"), workspace.artifact("evaluation")
        if run.parts:
            inputs = ensemble_inputs([part.config for part in run.parts])
        else:
            if model.manifest() is None:
                details = {"best": {"value": 0.5}, "history": [{"seconds": 1.0}]}
                model.commit(TRAIN.inputs(run.config, workspace), details)
            inputs = EVALUATE.inputs(run.config, workspace)
        ranks = [1 if query < 4 * ROWS[run.row] else 11 for query in range(4)]
        evaluation.write_table(
            FILE, pa.table([["ann", "ann", "bob", "bob"], [1] * 4, range(4), ranks], SCHEMA), fingerprint(inputs)
        )
        content = json.dumps({**RESULT, "overall": {"hr@10": ROWS[run.row]}}).encode()
        evaluation.write_file(METRICS_FILE, content, fingerprint(inputs))
        evaluation.commit(inputs)
        workspace.redo.take()


def _seeds(comparison: Comparison) -> dict[str, set[int]]:
    return {row.name: set(row.seeds) for row in comparison.rows}


def _tables(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, set[int]]]:
    """Seeds, by row, of every table that is written afterwards."""
    tables: list[dict[str, set[int]]] = []
    write = compare.to_csv

    def note(comparison: Comparison) -> str:
        tables.append(_seeds(comparison))
        return write(comparison)

    monkeypatch.setattr(compare, "to_csv", note)
    return tables


def test_resuming_takes_no_results_off_the_table(
    finished: Comparison,
    grid: GridConfig,
    configs: dict[str, Config],
    carried_out: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = {row: {1, 2} for row in ROWS}
    assert _seeds(finished) == everything
    method_runs(grid, configs)[1].workspace.artifact("evaluation").clear()  # IDs-1
    tables, events = _tables(monkeypatch), list[Event]()
    comparison = compare.run(grid, configs, events.append)
    assert carried_out == ["IDs-1"]
    assert tables == [{**everything, "IDs": {2}}, everything, everything]
    assert {event.stage for event in events if isinstance(event, StageSkipped)} == {
        "AlphaFuse-1", "AlphaFuse-2", "IDs-2", "both-1", "both-2"
    }  # fmt: skip
    assert [row.estimates for row in comparison.rows] == [row.estimates for row in finished.rows]


def test_what_was_made_from_other_settings_is_not_finished(
    finished: Comparison, grid: GridConfig, configs: dict[str, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for the method and for the ensembles of its models."""
    tables = _tables(monkeypatch)
    monkeypatch.setattr(compare, "_carry_out", lambda *_: None)
    changed = tiny_config(tmp_path, batch_size=11)
    assert _seeds(compare.run(grid, {**configs, "IDs": changed}, lambda event: None)) == {"AlphaFuse": {1, 2}}
    assert tables[0] == {"AlphaFuse": {1, 2}}


def test_other_settings_are_refused_with_what_to_do(
    finished: Comparison, grid: GridConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task itself is called here; Ray passes its error on unchanged."""

    def stages(config: Config, workspace: Workspace, stages: Sequence[str], listen: Listener) -> None:
        train.run(config, workspace, listen)

    monkeypatch.setattr(grid_runs, "run_stages", stages)
    run = method_runs(grid, {"IDs": tiny_config(tmp_path, batch_size=11)})[0]
    with pytest.raises(StaleError) as caught:
        grid_runs.carry_out._function(run, queue.SimpleQueue())
    for text in (str(caught.value), str(pickle.loads(pickle.dumps(caught.value)))):
        assert "IDs-1/model was made from other inputs" in text
        assert "train.batch_size: 10 → 11" in text
        assert text.endswith("make the row again: `alphafuse compare GRID --redo IDs`")


@pytest.mark.parametrize(
    ("row", "made"), [("both", ["both-1", "both-2"]), ("IDs", ["IDs-1", "IDs-2", "both-1", "both-2"])]
)
def test_a_row_is_made_again_when_asked(
    row: str,
    made: list[str],
    finished: Comparison,
    grid: GridConfig,
    configs: dict[str, Config],
    carried_out: list[str],
) -> None:
    models = [run.workspace.artifact("model") for run in method_runs(grid, configs) if run.row != row]
    before = [model.manifest() for model in models]
    compare.run(grid, configs, lambda event: None, again=[row])
    assert carried_out == made
    assert [model.manifest() for model in models] == before


@pytest.mark.parametrize("name", [METRICS_FILE, FILE])
@pytest.mark.parametrize("left", [b"{", None], ids=["cut off", "missing"])
def test_a_damaged_evaluation_is_a_failure_of_its_own(
    name: str,
    left: bytes | None,
    finished: Comparison,
    grid: GridConfig,
    configs: dict[str, Config],
    carried_out: list[str],
    tmp_path: Path,
) -> None:
    path, events = tmp_path / "IDs-1" / "evaluation" / name, list[Event]()
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    comparison = compare.run(grid, configs, events.append)
    assert list(comparison.failures) == ["IDs-1"]
    assert f"IDs-1/evaluation/{name} cannot be used: " in comparison.failures["IDs-1"]
    assert _seeds(comparison) == {"AlphaFuse": {1, 2}, "IDs": {2}, "both": {1, 2}}
    assert [event.stage for event in events if isinstance(event, StageFailed)] == ["IDs-1"]
    assert carried_out == []
    shutil.rmtree(path.parent)  # as the message advises
    assert compare.run(grid, configs, events.append).failures == {}
    assert carried_out == ["IDs-1"]
