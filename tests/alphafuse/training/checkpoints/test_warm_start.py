"""The start of an update's training: what is carried over by item id, and what new items begin with."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import (
    EMBEDDING_DIM,
    HIDDEN_DIM,
    NUM_ITEMS,
    hold_out,
    tiny_config,
    tiny_model,
)
from support.workspaces.updated_workspace import REMOVED, carried_items, parent_workspace, updated_workspace

from alphafuse.config import Config, parse_config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Event, StageWarning
from alphafuse.items.table_building import build_table
from alphafuse.stages import TRAIN
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.table_rows import read_chosen_rows, read_table_rows
from alphafuse.training.checkpoints.warm_start import WarmStart, shortened, warm_start
from alphafuse.training.engine import DenseEngine
from alphafuse.training.loop import Trainer
from alphafuse.training.objectives.objective_building import build_objective

CPU = torch.device("cpu")
STATE = ("rows", "first_moment", "second_moment")


class Killed(Exception):
    pass


def _train(config: Config, kill_at: int | None = None) -> tuple[dict[str, Any], list[Event]]:
    """Train to the end, or until step `kill_at`; returns the details of the model and all events."""
    events: list[Event] = []
    workspace = Workspace(config.workspace)
    trainer = Trainer(config, workspace, TRAIN.inputs(config, workspace), Communicator(), CPU, events.append)
    step = trainer.training_step

    def dying_step(plan: Any) -> torch.Tensor:
        if plan.number == kill_at:
            raise Killed
        return step(plan)

    trainer.training_step = dying_step  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        return trainer.run(), events
    return {}, events


def _start(config: Config) -> tuple[WarmStart, dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor], int]:
    """Facts about the start; this rank's rows and moments, and those of a start from scratch; the dense state; and the
    table's number of steps."""
    workspace, communicator = Workspace(config.workspace), Communicator()
    objective = build_objective(config, workspace, communicator)
    table = build_table(config, workspace, objective.encoder, communicator, CPU)
    engine, scratch = DenseEngine(objective, config.train, communicator.world_size), table.trainable.clone()
    begun = warm_start(config, workspace, objective.encoder, table, engine, communicator)
    tensors = (table.trainable, table.first_moment, table.second_moment)
    rows = {name: tensor.clone() for name, tensor in zip(STATE, tensors, strict=True)}
    return begun, rows, scratch, engine.state(), table.optimizer.steps


def _stored(folder: Path, dim: int) -> dict[str, torch.Tensor]:
    """Rows and moments of a finished model, by item index."""
    tensors = {name: torch.zeros(NUM_ITEMS, dim) for name in STATE}
    model = Workspace(str(folder)).artifact("model")
    read_table_rows(model, 0, {"rows": tensors["rows"]})
    moments = {name: tensors[name] for name in STATE[1:]}
    read_chosen_rows(model, np.arange(NUM_ITEMS), moments, beside=True)
    return tensors


@pytest.mark.distributed
def test_an_update_begins_where_its_parent_ended_and_is_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "parent")
    parent_workspace(tmp_path / "parent")
    run_ranks(2, _train, config)
    before = {path: path.read_bytes() for path in (tmp_path / "parent").rglob("*") if path.is_file()}
    model, known = Workspace(config.workspace).artifact("model"), carried_items()
    was = _stored(tmp_path / "parent", dim=3)
    dense = {
        name: value
        for file in ("dense.safetensors", "dense-moments.safetensors")
        for name, value in safetensors.torch.load(model.read_file(file)).items()
    }
    assert was["second_moment"].any()
    assert dense["adam_steps"] > 0
    results = []
    for world_size in (1, 2, 3):
        update = updated_workspace(tmp_path / str(world_size), config, tmp_path / "parent")
        started = run_ranks(world_size, _start, update)
        now = {name: torch.cat([rank[1][name] for rank in started]) for name in STATE}
        for name in STATE:
            assert torch.equal(now[name][known >= 0], was[name][known[known >= 0]])
            assert not now[name][known < 0].any()  # new items begin as their text alone, and without moments
        for begun, _, _, state, steps in started:
            assert begun == WarmStart(NUM_ITEMS - REMOVED, REMOVED, REMOVED, moments=True)
            assert steps == model.require().details["table_steps"] == int(dense["adam_steps"])
            assert state.keys() == dense.keys()
            assert all(torch.equal(state[name], value) for name, value in dense.items())
        details, events = run_ranks(world_size, _train, update)[0]
        assert not [event for event in events if isinstance(event, StageWarning)]
        assert details["update"]["carried"] == NUM_ITEMS - REMOVED
        assert details["best"]["value"] >= details["update"][config.train.monitor]
        results.append((details, _stored(tmp_path / str(world_size), dim=3)))
    for details, rows in results[1:]:
        assert details["update"] == pytest.approx(results[0][0]["update"], abs=1e-5)
        losses, expected = ([entry["loss"] for entry in each["history"]] for each in (details, results[0][0]))
        assert losses == pytest.approx(expected, abs=1e-5)
        torch.testing.assert_close(rows["rows"], results[0][1]["rows"], rtol=0, atol=1e-4)
    assert {path: path.read_bytes() for path in (tmp_path / "parent").rglob("*") if path.is_file()} == before


@pytest.mark.distributed
def test_weights_that_no_epoch_improves_stay_those_of_the_parent(tmp_path: Path) -> None:
    """The rates begin again, too."""
    config = tiny_config(tmp_path / "parent", learning_rate=1e-2)
    tiny_model(parent_workspace(tmp_path / "parent"), config)
    update = updated_workspace(tmp_path / "new", config, tmp_path / "parent")
    ruinous = update.train.model_copy(update={"learning_rate": 1e3, "table_learning_rate": 1e-9, "max_epochs": 5})
    update = update.model_copy(update={"train": ruinous, "update": update.update.model_copy(update={"patience": 2})})
    details, events = run_ranks(1, _train, update)[0]
    assert details["best"] == {"value": details["update"]["ndcg@20"], "epoch": 0, "step": 0}
    assert [entry["epoch"] for entry in details["history"]] == [1, 2]
    assert details["history"][0]["learning_rate"] == 1e3
    weights = [
        safetensors.torch.load(Workspace(str(tmp_path / name)).artifact("model").read_file("dense.safetensors"))
        for name in ("parent", "new")
    ]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    (said,) = [event.message for event in events if isinstance(event, StageWarning)]
    assert said.startswith("the parent's model has no moments")


@pytest.mark.distributed
def test_a_killed_update_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "parent", checkpoint_steps=2)
    tiny_model(parent_workspace(tmp_path / "parent"), config)
    whole, killed = (updated_workspace(tmp_path / name, config, tmp_path / "parent") for name in ("whole", "killed"))
    expected, _ = run_ranks(1, _train, whole)[0]
    run_ranks(1, _train, killed, 1)
    assert (tmp_path / "killed" / "checkpoints" / "step-000000000" / "manifest.json").exists()
    run_ranks(1, _train, killed, 5)
    details, _ = run_ranks(1, _train, killed)[0]
    assert details["update"] == expected["update"]
    assert details["best"] == expected["best"]
    assert [entry["loss"] for entry in details["history"]] == [entry["loss"] for entry in expected["history"]]


@pytest.mark.distributed
def test_a_recomputed_null_space_is_trained_in_from_scratch(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "parent", max_epochs=1)
    tiny_model(parent_workspace(tmp_path / "parent"), config)
    new = updated_workspace(tmp_path / "new", config, tmp_path / "parent", kind="recomputed")
    scratch = updated_workspace(tmp_path / "scratch", config, tmp_path / "parent")
    scratch = scratch.model_copy(update={"update": config.update})
    (details, _), (expected, _) = (run_ranks(1, _train, each)[0] for each in (new, scratch))
    assert details["update"] is None
    assert [entry["loss"] for entry in details["history"]] == [entry["loss"] for entry in expected["history"]]


def test_only_longer_trainings_are_shortened(tmp_path: Path) -> None:
    for max_epochs, patience, expected in ((100, 10, (10, 3)), (2, 1, (2, 1))):
        train = shortened(tiny_config(tmp_path, max_epochs=max_epochs, patience=patience))
        assert (train.max_epochs, train.patience) == expected


NORMAL, ZEROS, FEATURES = "normal", "zeros", "features"
ENCODERS: dict[str, tuple[dict[str, Any], str]] = {
    "id": ({"encoder": {"name": "id"}}, NORMAL),
    "alphafuse": ({"encoder": {"initialization": "normal"}}, ZEROS),
    "alphafuse replace": ({"encoder": {"fusion": "replace", "initialization": "normal"}}, ZEROS),
    "alphafuse trained": ({"encoder": {"frozen": False}}, FEATURES),
    "morec": ({"encoder": {"name": "morec"}}, ZEROS),
    "rlmrec_con": ({"encoder": {"name": "rlmrec_con"}}, NORMAL),
    "llm_esr": ({"encoder": {"name": "llm_esr"}}, FEATURES),
    "euclidean injection": (
        {"encoder": {"injection_space": "euclidean", "initialization": "normal"}, "hidden_dim": EMBEDDING_DIM},
        ZEROS,
    ),
}
"""Settings of each kind of encoder, and what the rows of its new items begin as."""


def _start_all(configs: list[Config]) -> list[Any]:
    return [_start(config) for config in configs]


@pytest.mark.distributed
def test_every_kind_of_encoder_is_continued(tmp_path: Path) -> None:
    configs, known = [], carried_items()
    for number, (settings, _) in enumerate(ENCODERS.values()):
        tree = tiny_config(tmp_path / f"parent-{number}").model_dump(mode="json")
        tree["decompose"]["directions"] = HIDDEN_DIM
        tree["model"] |= settings
        config = parse_config(tree)
        tiny_model(parent_workspace(tmp_path / f"parent-{number}"), config)
        configs.append(updated_workspace(tmp_path / f"new-{number}", config, tmp_path / f"parent-{number}"))
    held_out = np.arange(NUM_ITEMS) == np.flatnonzero(known >= 0)[0]
    hold_out(Workspace(configs[1].workspace), held_out)
    for number, result in enumerate(run_ranks(1, _start_all, configs)[0]):
        begun, rows, scratch, _, _ = result
        assert not begun.moments
        starts_as = list(ENCODERS.values())[number][1]
        before = torch.zeros(NUM_ITEMS, rows["rows"].shape[1])
        if before.shape[1]:
            read_table_rows(Workspace(str(tmp_path / f"parent-{number}")).artifact("model"), 0, {"rows": before})
        carried = (known >= 0) & ~(held_out & (number == 1))
        assert torch.equal(rows["rows"][carried], before[known[carried]])
        assert torch.equal(rows["rows"][known < 0], scratch[known < 0] * (starts_as != ZEROS))
    assert not run_ranks(1, _start, configs[1])[0][1]["rows"][held_out].any()


@pytest.mark.distributed
def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "parent")
    tiny_model(parent_workspace(tmp_path / "parent"), config)
    update = updated_workspace(tmp_path / "new", config, tmp_path / "parent")
    longer = update.model_copy(update={"model": update.model.model_copy(update={"history_length": 5})})
    with pytest.raises(RuntimeError, match=r"have the shape \(4, 8\), where this model has \(5, 8\)"):
        run_ranks(1, _start, longer)
