"""Which settings may be tuned: those that change the model, measured by the same validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config.space import SearchSpace, load_space
from alphafuse.errors import ConfigError
from alphafuse.tuning.tunable import shared_variants, tunable


def _space(folder: Path, settings: dict[str, Any], *overrides: str) -> SearchSpace:
    config = tiny_config(folder)
    (folder / "base.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (folder / "space.yaml").write_text(yaml.safe_dump({"trials": 1, "settings": settings}))
    return load_space(folder / "space.yaml", folder / "base.yaml", overrides)


@pytest.mark.parametrize(
    ("key", "distribution", "message"),
    [
        ("data.split.kind", {"choice": ["users", "leave_one_out"]}, "the same validation queries"),
        ("seed", {"integers": [1, 3]}, "the same validation queries"),
        ("evaluate.exclude_seen", {"choice": [True, False]}, "the same validation queries"),
        ("train.monitor", {"choice": ["ndcg@10", "hr@10"]}, "the same validation queries"),
        ("train.validation_targets", {"choice": [10, 20]}, "the same validation queries"),
        ("decompose.scale", {"uniform": [1.0, 40.0]}, "made once for each of its values .* give a `choice`"),
        ("train.resources.workers", {"integers": [1, 3]}, "none of them changes what this configuration trains"),
        ("recommend.top_k", {"integers": [1, 3]}, "none of them changes what this configuration trains"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, key: str, distribution: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"settings.*\(.*space\.yaml, line \d\): .*{message}"):
        tunable(_space(tmp_path, {key: distribution}))


def test_settings_that_a_method_does_not_read_are_left_out(tmp_path: Path) -> None:
    settings = {"decompose.null_dim": {"choice": [2, 3]}, "train.learning_rate": {"uniform": [0.1, 1.0]}}
    assert list(tunable(_space(tmp_path, settings)).space.settings) == ["decompose.null_dim", "train.learning_rate"]
    ids = _space(tmp_path, settings, "model.encoder={name: id}")
    assert list(tunable(ids).space.settings) == ["train.learning_rate"]
    assert len(shared_variants(tunable(ids))) == 1


def test_every_combination_of_shared_settings_is_made(tmp_path: Path) -> None:
    """8 directions with 8 in the null space leave no row space: the configuration refuses it."""
    settings = {
        "decompose.null_dim": {"choice": [3, 8]},
        "decompose.directions": {"choice": [8, 9]},
        "model.encoder.name": {"choice": ["whitenrec", "morec"]},
        "train.learning_rate": {"uniform": [0.1, 1.0]},
    }
    space = _space(tmp_path, settings, "model.encoder={name: whitenrec}", "decompose.directions=9")
    made = {
        (config.model.encoder.name, config.decompose.null_dim, config.directions) for config in shared_variants(space)
    }
    assert made == {("whitenrec", 3, 8), ("whitenrec", 3, 9), ("whitenrec", 8, 9)} | {
        ("morec", dim, directions) for dim in (3, 8) for directions in (8, 9)
    }
