"""Test targets do not change what a tuning chooses by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import NUM_ITEMS, NUM_USERS, tiny_config, tiny_sequences, tiny_workspace

from alphafuse.distributed.communicator import Communicator
from alphafuse.events import ignore
from alphafuse.training.loop import Trainer
from alphafuse.tuning.trials import Trial, Tuning

FIRST_TESTED = 21
"""The users from this one on are tested (see `tiny_workspace`)."""


def _trial(folder: Path, name: str, rate: float, sequences: list[list[int]]) -> Trial:
    """Train one trial, as the stage `train` does, on a workspace with these sequences."""
    config = tiny_config(folder / name, learning_rate=rate, monitor="ndcg@20")
    workspace = tiny_workspace(folder / name, sequences=sequences)
    communicator: Any = Communicator()
    details = Trainer(config, workspace, {"made by": "hand"}, communicator, torch.device("cpu"), ignore).run()
    trial = Trial(name, {"train.learning_rate": rate})
    for entry in details["history"]:
        trial.note(entry["epoch"], entry["validation"]["ndcg@20"])
    return trial


def _choice(folder: Path, sequences: list[list[int]]) -> tuple[str, list[list[tuple[int, float]]]]:
    """Name of the best of two trials, and the validations of both."""
    trials = [_trial(folder, f"trial-00{number}", rate, sequences) for number, rate in enumerate((1e-3, 1e-1), 1)]
    tuning = Tuning("ndcg@20", {}, {}, trials=trials)
    assert tuning.best is not None
    return tuning.best.name, [trial.curve for trial in trials]


@pytest.mark.distributed
def test_other_test_targets_give_the_same_choice(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    others = [
        [(NUM_ITEMS - 1 - item) for item in sequence] if user >= FIRST_TESTED else sequence
        for user, sequence in enumerate(sequences)
    ]
    assert sum(one != other for one, other in zip(sequences, others, strict=True)) == NUM_USERS - FIRST_TESTED
    (chosen,) = run_ranks(1, _choice, tmp_path / "one", sequences)
    (with_others,) = run_ranks(1, _choice, tmp_path / "other", others)
    assert chosen == with_others
