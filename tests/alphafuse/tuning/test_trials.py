"""The record of a tuning's trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphafuse.errors import StaleError, WorkspaceError
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.tuning.trials import FAILED, FILE, FINISHED, STOPPED, Trial, Tuning, read_tuning

TRIALS = [
    Trial("trial-001", {"a": 0.1, "b": True}, FINISHED, curve=[(1, 0.2), (2, 0.5), (3, 0.4)], seconds=3.0),
    Trial("trial-002", {"a": 3e-05, "b": False}, STOPPED, curve=[(1, 0.3)]),
    Trial("trial-003", {"a": 0.2, "b": True}, FAILED, "no memory", curve=[(1, 0.9)]),
    Trial("trial-004", {"a": 1, "b": None}),
]


OUTSIDE = b'{"metric": "x", "made_from": {}, "budget": {}, "trials": [{"name": "trial-001/../..", "settings": {}}]}'


def _tuning() -> Tuning:
    return Tuning("ndcg@20", {"train": {"seed": 1}}, {"trials": 4, "minutes": None}, 12.5, list(TRIALS))


def test_the_best_validation_counts_and_failures_do_not() -> None:
    tuning = _tuning()
    assert [trial.name for trial in tuning.ranked()] == ["trial-001", "trial-002", "trial-004", "trial-003"]
    assert tuning.best is TRIALS[0]
    assert TRIALS[0].best == (2, 0.5)
    assert list(TRIALS[0].best_so_far()) == [(1, 0.2), (2, 0.5), (3, 0.5)]
    assert Tuning("x", {}, {}, trials=TRIALS[2:]).best is None


def test_epochs_that_are_trained_again_are_noted_once() -> None:
    trial = Trial("trial-001", {})
    for epoch in (1, 3, 2, 3):
        trial.note(epoch, epoch / 10)
    assert trial.curve == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert trial.epochs == 3


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert read_tuning(folder) is None
    _tuning().write(folder)
    read = read_tuning(folder)
    assert read == _tuning()
    assert read is not None
    assert [type(trial.settings["a"]) for trial in read.trials] == [float, float, float, int]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"metric": 3}', OUTSIDE])
def test_damage_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(WorkspaceError, match=r"trials\.json is damaged \(.*Delete it and the trials beside it"):
        read_tuning(Folder(str(tmp_path)))


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    _tuning().require_same({"train": {"seed": 1}}, Folder(str(tmp_path)))
    with pytest.raises(StaleError, match=r"other settings \(train\.seed: 1 → 2\).*--redo"):
        _tuning().require_same({"train": {"seed": 2}}, Folder(str(tmp_path)))
