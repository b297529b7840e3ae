"""Elastic training: a checkpoint of N ranks loads on M ranks bit for bit, and training continues in the same way."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import StaleError
from alphafuse.events import Event as RunEvent
from alphafuse.events import StageWarning
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import Checkpoints
from alphafuse.training.checkpoints.table_rows import RowFile
from alphafuse.training.loop import Trainer

INPUTS = {"test": "checkpoint"}
WORLD_SIZES = (1, 2, 3, 4)
STEPS = 3


def _trainer(config: Config, events: list[RunEvent]) -> Trainer:
    workspace = Workspace(config.workspace)
    return Trainer(config, workspace, INPUTS, Communicator(), torch.device("cpu"), events.append)


def _take_steps(trainer: Trainer, steps: int) -> list[float]:
    """Take steps from where the trainer stands; returns this rank's shares of the losses."""
    state, losses = trainer.state, []
    for plan in itertools.islice(trainer.plans(), steps):
        losses.append(float(trainer.training_step(plan)))
        state.step += 1
        state.step_in_epoch += 1
    return losses


def _state(trainer: Trainer) -> dict[str, Any]:
    table = trainer.table
    rows = {name: getattr(table, name).clone() for name in ("trainable", "first_moment", "second_moment")}
    dense, steps, average = trainer.engine.state(), [table.optimizer.steps], trainer._average
    if average:
        rows["average"] = average.rows.clone()
        dense |= {name: value.clone() for name, value in average.state().items()}
        steps.append(average.steps)
    return {**rows, "first_row": table.first_row, "steps": steps, "dense": dense}


def _train_and_save(config: Config) -> dict[str, Any]:
    trainer = _trainer(config, [])
    _take_steps(trainer, STEPS)
    trainer._save()
    state = _state(trainer)
    trainer._checkpoints.wait()
    return state


def _load(config: Config) -> tuple[dict[str, Any], list[float], dict[str, Any], list[RunEvent]]:
    """State after loading, losses of the next two steps, state after them, and the events."""
    events: list[RunEvent] = []
    trainer = _trainer(config, events)
    trainer._resume()
    before = _state(trainer)
    return before, _take_steps(trainer, 2), _state(trainer), events


def _whole(states: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The table over all ranks, and the dense state, which is equal on all."""
    assert [state["first_row"] for state in states] == sorted(state["first_row"] for state in states)
    names = {"trainable", "first_moment", "second_moment", "average"} & states[0].keys()
    whole = {name: torch.cat([state[name] for state in states]) for name in names}
    assert len(whole["trainable"]) == NUM_ITEMS
    for state in states[1:]:
        for name, value in states[0]["dense"].items():
            assert torch.equal(state["dense"][name], value)
    return whole | states[0]["dense"] | {"steps": torch.tensor([state["steps"] for state in states]).unique(dim=0)}


@pytest.mark.distributed
@pytest.mark.parametrize(("saved_on", "zero_stage"), [*((world_size, 0) for world_size in WORLD_SIZES), (3, 2)])
def test_any_number_of_ranks_loads_what_any_number_saved(tmp_path: Path, saved_on: int, zero_stage: int) -> None:
    settings = {"batch_size": 5, "max_grad_norm": 0.5, "averaging": 0.5, "deepspeed": {"zero_stage": zero_stage}}
    config = tiny_config(tmp_path, **settings)
    tiny_workspace(tmp_path)
    saved = _whole(run_ranks(saved_on, _train_and_save, config))
    assert saved["first_moment"].abs().sum() > 0
    assert saved["adam_steps"] == STEPS
    assert not torch.equal(saved["average"], saved["trainable"])
    continued = []
    for loaded_on in WORLD_SIZES:
        before, losses, after, _ = zip(*run_ranks(loaded_on, _load, config), strict=True)
        loaded = _whole(list(before))
        assert loaded.keys() == saved.keys()
        for name, value in saved.items():
            assert torch.equal(loaded[name], value), f"{name} on {loaded_on} ranks"
        continued.append((torch.tensor(losses).sum(dim=0), _whole(list(after))))
    for losses, after in continued[1:]:
        torch.testing.assert_close(losses, continued[0][0], rtol=0, atol=1e-5)
        for name, value in continued[0][1].items():
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-5)


def _steps_from_the_start(config: Config) -> tuple[list[float], dict[str, Any]]:
    trainer = _trainer(config, [])
    return _take_steps(trainer, 6), _state(trainer)


def _compare_world_sizes(config: Config, world_sizes: tuple[int, ...]) -> None:
    tiny_workspace(Path(config.workspace), row_group_size=2)
    results = []
    for world_size in world_sizes:
        losses, states = zip(*run_ranks(world_size, _steps_from_the_start, config), strict=True)
        results.append((torch.tensor(losses).sum(dim=0), _whole(list(states))))
    expected_losses, expected = results[0]
    assert expected_losses.isfinite().all()
    for losses, whole in results[1:]:
        torch.testing.assert_close(losses, expected_losses, rtol=0, atol=1e-5)
        for name, value in expected.items():
            torch.testing.assert_close(whole[name], value, rtol=0, atol=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize(("batch_size", "accumulation"), [(10, 1), (7, 2), (2, 1)])
def test_a_batch_is_the_same_for_any_number_of_ranks(tmp_path: Path, batch_size: int, accumulation: int) -> None:
    """Also if the number of samples is not divisible by the number of ranks, or is smaller."""
    settings = {"batch_size": batch_size, "accumulation": accumulation, "max_grad_norm": 0.5}
    _compare_world_sizes(tiny_config(tmp_path, **settings), WORLD_SIZES)


LOSSES: list[dict[str, Any]] = [
    {"loss": {"name": "infonce", "negatives": "uniform", "num_negatives": 6}},
    {"loss": {"name": "infonce", "negatives": "uniform", "num_negatives": 6}, "positions": "last"},
    {"loss": {"name": "sampled_softmax", "negatives": "shard_local", "num_negatives": 6}},
    {"loss": {"name": "infonce", "negatives": "in_batch", "num_negatives": 6}},
    {"loss": {"name": "gbce", "similarity": "dot", "num_negatives": 6}},
    {"loss": {"name": "softmax"}},
    {"loss": {"name": "infonce", "negatives": "in_batch", "num_negatives": 6}, "shuffle_users": 4, "accumulation": 2},
    {"backbone": {"name": "gru4rec", "dropout": 0.0}},
    {"backbone": {"name": "hstu", "dropout": 0.0}},
    {"backbone": {"name": "dreamrec", "dropout": 0.0}, "loss": {"name": "diffusion", "similarity": "dot"}},
    {
        "backbone": {"name": "dreamrec", "dropout": 0.0},
        "loss": {"name": "diffusion", "similarity": "dot"},
        "shuffle_users": 4,
    },
]


@pytest.mark.distributed
@pytest.mark.parametrize("settings", LOSSES)
def test_a_rank_without_samples_takes_its_steps(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The last step of an epoch may leave a rank without samples, and where ranks read apart (`shuffle_users`), any
    step may: here it has samples of two buffers, too."""
    _compare_world_sizes(
        tiny_config(tmp_path, **{"batch_size": 5 if "shuffle_users" in settings else 2, **settings}), (1, 3)
    )


def _save_twice(config: Config) -> None:
    trainer = _trainer(config, [])
    _take_steps(trainer, 1)
    trainer._checkpoints.save(1, trainer.table, trainer.engine, trainer._average, _progress(trainer), [])
    _take_steps(trainer, 1)
    trainer._checkpoints.save(2, trainer.table, trainer.engine, trainer._average, _progress(trainer), [1])
    trainer._checkpoints.wait()


def _progress(trainer: Trainer) -> dict[str, Any]:
    return {**vars(trainer.state)}


def _save_and_go_on(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take two steps while nothing of a checkpoint is written yet; returns the states before them and after loading."""
    trainer, gate, write = _trainer(config, []), Event(), RowFile.write

    def write_late(file: RowFile, *arguments: Any) -> None:
        gate.wait()
        write(file, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowFile, "write", write_late)
        _take_steps(trainer, STEPS)
        trainer._save()
        saved = _state(trainer)
        _take_steps(trainer, 2)
        assert trainer._checkpoints.written() == []
        gate.set()
        trainer._checkpoints.wait()
    assert [each.step for each in trainer._checkpoints.written()] == [STEPS] * (Communicator().rank == 0)
    trainer._checkpoints.load(STEPS, trainer.table, trainer.engine, trainer._average)
    return saved, _state(trainer)


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 3])
def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, world_size: int) -> None:
    config = tiny_config(tmp_path, batch_size=5)
    tiny_workspace(tmp_path)
    saved, loaded = zip(*run_ranks(world_size, _save_and_go_on, config), strict=True)
    _require_equal(_whole(list(saved)), _whole(list(loaded)))


def _require_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def _fail_to_save(config: Config) -> tuple[str, int]:
    """Let rank 1 fail to write its second checkpoint; returns the error of the third, and the step of a new start."""
    trainer, write = _trainer(config, []), RowFile.write

    def fail(file: RowFile, artifact: Artifact, *arguments: Any) -> None:
        if Communicator().rank == 1 and artifact.folder.uri.endswith("2"):
            raise PermissionError("no more files here")
        write(file, artifact, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowFile, "write", fail)
        for step in (1, 2):
            _take_steps(trainer, 1)
            trainer._checkpoints.save(step, trainer.table, trainer.engine, trainer._average, _progress(trainer), [])
        with pytest.raises((PermissionError, RuntimeError)) as raised:
            trainer._checkpoints.save(3, trainer.table, trainer.engine, trainer._average, _progress(trainer), [])
    return f"{type(raised.value).__name__}: {raised.value}", _resumed_step(config)[0]


@pytest.mark.distributed
def test_a_checkpoint_that_fails_on_one_rank_is_told_on_all_and_leaves_the_one_before(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    tiny_workspace(tmp_path)
    other = "RuntimeError: another rank could not write the checkpoint: PermissionError('no more files here')"
    results = run_ranks(3, _fail_to_save, config)
    assert results == [(other, 1), ("PermissionError: no more files here", 1), (other, 1)]


def _begin(config: Config, resume: bool) -> dict[str, Any]:
    trainer = _trainer(config, [])
    if resume:
        trainer._resume()
    return _state(trainer)


@pytest.mark.distributed
def test_nothing_of_a_damaged_checkpoint_stays_in_the_table(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    tiny_workspace(tmp_path)
    run_ranks(2, _train_and_save, config)
    _flip_a_bit(tmp_path / "checkpoints" / f"step-{STEPS:09d}" / "table-000000000015.safetensors")
    _require_equal(_whole(run_ranks(2, _begin, config, True)), _whole(run_ranks(2, _begin, config, False)))


def _resumed_step(config: Config) -> tuple[int, list[str]]:
    events: list[RunEvent] = []
    trainer = _trainer(config, events)
    trainer._resume()
    return trainer.state.step, [event.message for event in events if isinstance(event, StageWarning)]


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.distributed
def test_a_damaged_checkpoint_is_not_continued(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    tiny_workspace(tmp_path)
    run_ranks(2, _save_twice, config)
    newest = tmp_path / "checkpoints" / "step-000000002"
    assert run_ranks(3, _resumed_step, config) == [(2, [])] * 3
    _flip_a_bit(newest / "table-000000000015.safetensors")
    message = "checkpoints are damaged ({}); training continues from {}"
    first = message.format(f"{newest}/table-000000000015.safetensors", "step 1")
    assert run_ranks(3, _resumed_step, config) == [(1, [first]), (1, []), (1, [])]
    (newest.parent / "step-000000001" / "dense.safetensors").unlink()
    step, (warning,) = run_ranks(1, _resumed_step, config)[0]
    assert step == 0
    assert warning.endswith("step-000000001/dense.safetensors); training continues from the beginning")


def _write_half(config: Config) -> None:
    """Write a checkpoint without the files of rank 1, as if that rank had died."""
    trainer = _trainer(config, [])
    _take_steps(trainer, 1)
    checkpoints = trainer._checkpoints
    checkpoint = checkpoints.at(1)
    if Communicator().rank == 0:
        checkpoint.write_file(
            "table-000000000000.safetensors", b"rows", checkpoints._fingerprint, rows=len(trainer.table.trainable)
        )


@pytest.mark.distributed
def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    tiny_workspace(tmp_path)
    run_ranks(2, _write_half, config)
    assert run_ranks(2, _resumed_step, config) == [(0, [])] * 2
    run_ranks(3, _save_twice, config)  # over the remains of the first attempt
    assert run_ranks(2, _resumed_step, config) == [(2, [])] * 2


@pytest.mark.distributed
@pytest.mark.parametrize("named", [True, False], ids=["named by the checkpoint", "of version 0.1.0"])
def test_the_best_weights_must_be_whole_too(tmp_path: Path, named: bool) -> None:
    config = tiny_config(tmp_path)
    tiny_workspace(tmp_path)
    run_ranks(1, _save_best_and_later, config)
    path = tmp_path / "checkpoints" / "step-000000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["details"]["needs"] == [1]
    if not named:
        del manifest["details"]["needs"], manifest["seal"]
        manifest["format_version"] = 1
        path.write_text(json.dumps(manifest))
    assert run_ranks(1, _resumed_step, config) == [(2, [])]
    _flip_a_bit(tmp_path / "checkpoints" / "step-000000001" / "dense.safetensors")
    ((step, (warning,)),) = run_ranks(1, _resumed_step, config)
    assert step == 0
    assert "step-000000001/dense.safetensors" in warning


def _save_best_and_later(config: Config) -> None:
    trainer = _trainer(config, [])
    for step in (1, 2):
        _take_steps(trainer, 1)
        best = {"value": 0.5, "epoch": 1, "step": 1}
        progress = {**_progress(trainer), "best": best}
        trainer._checkpoints.save(step, trainer.table, trainer.engine, trainer._average, progress, [1])
        trainer._checkpoints.wait()


def _refusal(config: Config) -> str:
    trainer = _trainer(config, [])
    with pytest.raises(StaleError) as refused:
        trainer.run()
    return str(refused.value)


@pytest.mark.distributed
def test_a_training_whose_samples_came_in_another_order_is_refused(tmp_path: Path) -> None:
    config, workspace = tiny_config(tmp_path), tiny_workspace(tmp_path)
    Checkpoints(workspace, INPUTS, Communicator()).at(4).commit(INPUTS)  # version 0.1.0 did not name an order
    (message,) = run_ranks(1, _refusal, config)
    assert "step-000000004 was made from other inputs" in message
    assert "order_of_samples: None → '960 lanes'" in message
    assert "--redo train" in message
