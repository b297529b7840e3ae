"""A whole tuning on real Ray workers, whose driver is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from ray.cluster_utils import Cluster

from alphafuse.config import load_config
from alphafuse.config.space import SearchSpace, load_space
from alphafuse.errors import StaleError
from alphafuse.events import EpochMetrics, Event, StageFailed, StageFinished, StageSkipped, StageWarning, ignore
from alphafuse.stages import EVALUATE, needed_stages
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from alphafuse.tuning.trials import ENDED, FILE, FINISHED, Trial, Tuning, read_tuning
from jobs.pipeline import run_stages
from jobs.tuning import tune
from monitoring.run_log.event_log import read_events

NUM_ITEMS, NUM_USERS, EPOCHS = 40, 30, 10
SETTINGS = {
    "train.learning_rate": {"log_uniform": [1e-4, 1e-1]},
    "train.max_grad_norm": {"uniform": [0.1, 10.0]},
    "model.hidden_dim": {"choice": [8, 50]},  # wider than the embeddings: its null space cannot be made
}


def _space(folder: Path, *overrides: str, **space: Any) -> SearchSpace:
    """Files of items with vectors and of a log, a configuration and a space over it."""
    generator = np.random.default_rng(0)
    items = [f"item {number}" for number in range(NUM_ITEMS)]
    vectors = pa.array(list(generator.standard_normal((NUM_ITEMS, 12)).astype(np.float32)), pa.list_(pa.float32()))
    pq.write_table(pa.table({"item_id": items, "text": items, "embedding": vectors}), folder / "items.parquet")
    log = [(f"user {user}", str(item), at) for user in range(NUM_USERS) for at, item in enumerate(
        generator.choice(items, 6, replace=False)
    )]  # fmt: skip
    columns = map(list, zip(*log, strict=True))
    pq.write_table(pa.table(list(columns), ["user_id", "item_id", "timestamp"]), folder / "log.parquet")
    config = {
        "workspace": str(folder / "run"),
        "data": {
            "folder": str(folder),
            "catalog": {"path": "items.parquet"},
            "interactions": {"path": "log.parquet"},
            "split": {"kind": "leave_one_out"},
        },
        "embed": {"engine": "precomputed", "precomputed": "items.parquet"},
        "decompose": {"null_dim": 3},
        "model": {"hidden_dim": 8, "history_length": 4},
        "train": {"max_epochs": EPOCHS, "loss": {"num_negatives": 6}},
    }
    tree = {"trials": 3, "grace_period": EPOCHS, "settings": SETTINGS, **space}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "space.yaml").write_text(yaml.safe_dump(tree))
    return load_space(folder / "space.yaml", folder / "config.yaml", overrides)


@dataclass
class Tuned:
    """A tuning whose driver was killed in its second trial, and which then went on.

    Attributes:
        folder: its folder.
        killed: the record as the killed driver left it.
        tuning: the record at the end.
        events: events of the call that went on.
    """

    folder: Path
    space: SearchSpace
    killed: Tuning
    tuning: Tuning
    events: list[Event]


@pytest.fixture(scope="module")
def tuned(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("tuning")
    space = _space(folder)
    files = [str(folder / name) for name in ("config.yaml", "space.yaml")]
    program = [sys.executable, "-c", "from cluster.cli.main import main; main()", "tune", *files]
    address = ["--set", f"ray.address={ray_cluster.address}"]
    tuned_folder = Folder(str(folder / "run-tuned"))
    with subprocess.Popen([*program, *address], env={**os.environ, "RAY_AUTH_MODE": "disabled"}) as process:
        deadline, killed = time.monotonic() + 300, None
        while process.poll() is None and time.monotonic() < deadline:
            killed = read_tuning(tuned_folder)
            if killed is not None and len(killed.trials) == 2 and killed.trials[1].epochs >= 2:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = read_tuning(tuned_folder)
    assert left is not None
    events: list[Event] = []
    tuning = tune.run(space, tuned_folder, events.append)
    return Tuned(folder / "run-tuned", space, left, tuning, events)


pytestmark = pytest.mark.engine


def _epochs(tuned: Tuned, name: str) -> list[int]:
    """Epochs that were trained in the workspace of a trial, in the order of their events."""
    logged = read_events(Workspace(str(tuned.folder / name)), "train")
    return [event.epoch for event in logged if isinstance(event, EpochMetrics)]


def test_a_killed_tuning_goes_on_where_it_was(tuned: Tuned) -> None:
    first, second, third = tuned.tuning.trials
    assert (first.settings, first.curve) == (tuned.killed.trials[0].settings, tuned.killed.trials[0].curve)
    assert second.settings == tuned.killed.trials[1].settings
    assert [trial.state for trial in tuned.tuning.trials] == [FINISHED] * 3
    assert tuned.tuning.seconds > tuned.killed.seconds > 0
    assert StageSkipped in {type(event) for event in tuned.events if event.stage == "trial-001"}
    epochs = _epochs(tuned, "trial-002")
    assert len(tuned.killed.trials[1].curve) >= 2
    assert epochs.count(1) == 1  # it went on from a checkpoint
    for trial in (first, second, third):
        assert [epoch for epoch, _ in trial.curve] == list(range(1, EPOCHS + 1))
        model = Workspace(str(tuned.folder / trial.name)).artifact("model").require()
        values = [(entry["epoch"], entry["validation"]["ndcg@20"]) for entry in model.details["history"]]
        assert trial.curve == values


def test_stages_before_training_are_shared_and_one_that_fails_stops_no_other(tuned: Tuned) -> None:
    assert {trial.settings["model.hidden_dim"] for trial in tuned.tuning.trials} == {8}
    (failure,) = [event for event in tuned.events if isinstance(event, StageFailed)]
    assert "exceeds the 12 dimensions" in failure.message
    shared = sorted(path.name.partition("-")[0] for path in (tuned.folder / "shared").iterdir())
    assert shared == ["decompose", "decompose", "embed", "prepare"]


def test_nothing_ranks_a_test_target(tuned: Tuned) -> None:
    for trial in tuned.tuning.trials:
        assert {path.name for path in (tuned.folder / trial.name / "events").iterdir()} == {
            "train.jsonl", "heartbeat.json"
        }  # fmt: skip
    assert not list(tuned.folder.rglob("evaluation"))


def test_the_best_configuration_runs_and_another_call_finds_nothing_to_do(tuned: Tuned) -> None:
    best = tuned.tuning.best
    assert best is not None
    assert best.best is not None
    assert best.best[1] == max(value for trial in tuned.tuning.trials for _, value in trial.curve)
    config, events = load_config(tuned.folder / "best.yaml"), list[Event]()
    assert config.train.learning_rate == best.settings["train.learning_rate"]
    run_stages(config, Workspace(config.workspace), needed_stages(config, EVALUATE), events.append)
    assert {event.stage for event in events if isinstance(event, StageFinished)} == {"evaluate"}
    again: list[Event] = []
    assert tune.run(tuned.space, Folder(str(tuned.folder)), again.append).trials == tuned.tuning.trials
    assert {type(event) for event in again} == {StageSkipped}


def test_another_space_is_refused_until_the_trials_are_deleted(tmp_path: Path) -> None:
    folder, space = Folder(str(tmp_path / "run-tuned")), _space(tmp_path)
    tuning = tune.open_record(space, folder, again=False)
    tuning.trials.append(Trial("trial-001", {"train.learning_rate": 0.1}, ENDED[0]))
    tuning.write(folder)
    (folder / "trial-001").write_bytes("model", b"")
    assert tune.open_record(_space(tmp_path, "trials=9"), folder, again=False).budget["trials"] == 9
    other = _space(tmp_path, "train.batch_size=8", grace_period=7)
    with pytest.raises(StaleError, match=r"space\.grace_period: 10 → 7; train\.train\.batch_size: 64 → 8.*--redo"):
        tune.open_record(other, folder, again=False)
    assert tune.open_record(other, folder, again=True).trials == []
    assert json.loads(folder.read_bytes(FILE))["trials"] == []
    assert not (folder / "trial-001").exists()


def test_what_a_method_does_not_read_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Over(Exception):
        pass

    def open_record(space: SearchSpace, folder: Folder, again: bool) -> Tuning:
        assert set(space.space.settings) == set(SETTINGS)
        raise Over

    monkeypatch.setattr(tune, "open_record", open_record)
    monkeypatch.setattr(tune, "connected", contextlib.nullcontext)
    monkeypatch.setattr(tune, "require_shared", ignore)
    monkeypatch.setattr(tune, "require_places", lambda *_: None)
    settings = {**SETTINGS, "decompose.null_dim": {"choice": [2, 3]}}
    events: list[Event] = []
    with pytest.raises(Over):
        tune.run(_space(tmp_path, "model.encoder.name=id", settings=settings), Folder(str(tmp_path)), events.append)
    (warning,) = events
    assert isinstance(warning, StageWarning)
    assert warning.message.endswith("with this configuration: decompose.null_dim")
