"""Search spaces: what may be written, the configurations that follow, and errors that name file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from alphafuse.config.space import SearchSpace, load_space
from alphafuse.errors import ConfigError
from alphafuse.tuning.tunable import tunable

SPACES = Path(__file__).parents[3] / "configs" / "spaces"
BASE: dict[str, Any] = {
    "workspace": "runs/x",
    "data": {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}},
    "decompose": {"null_dim": 64},
}
SETTINGS = {
    "train.learning_rate": {"log_uniform": [1e-4, 1e-2]},
    "model.backbone.num_layers": {"integers": [1, 3]},
    "decompose.null_dim": {"choice": [32, 64]},
}


def _load(folder: Path, *overrides: str, settings: dict[str, Any] = SETTINGS, **space: Any) -> SearchSpace:
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    tree = {"trials": 5, "settings": settings, **space}
    (folder / "space.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return load_space(folder / "space.yaml", folder / "base.yaml", overrides)


def test_configurations_are_the_base_with_changed_settings(tmp_path: Path) -> None:
    space = _load(tmp_path, "trials=7", "train.batch_size=16")
    assert (space.space.trials, space.base.train.batch_size) == (7, 16)
    config = space.configuration({"train.learning_rate": 1.5e-05, "decompose.null_dim": 32}, "runs/y")
    assert (config.train.learning_rate, config.decompose.null_dim) == (1.5e-05, 32)
    assert (config.train.batch_size, config.workspace) == (16, "runs/y")
    assert space.base.workspace == "runs/x"


def test_the_first_settings_are_those_of_the_base_where_the_space_holds_them(tmp_path: Path) -> None:
    first = {"train.learning_rate": 3e-3, "model.backbone.num_layers": 1, "decompose.null_dim": 64}
    assert _load(tmp_path).first_settings() == first
    other = {"train.learning_rate": pytest.approx(1e-3), "model.backbone.num_layers": 2, "decompose.null_dim": 32}
    changed = ("train.learning_rate=0.5", "model.backbone.num_layers=4", "decompose.null_dim=63")
    assert _load(tmp_path, *changed).first_settings() == other
    dropout = {"model.backbone.dropout": {"uniform": [0.0, 0.5]}}  # null in the base
    assert _load(tmp_path, settings=dropout).first_settings() == {"model.backbone.dropout": 0.25}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.learning_rat": {"uniform": [0.1, 1]}}, "unknown key; did you mean 'train.learning_rate'?"),
        ({"train.learning_rate": {"uniform": [0, 1]}}, "0.0 is refused: train.learning_rate: input should be greater"),
        ({"train.learning_rate": {"uniform": [1, 0.1]}}, "uniform: the first end must be below the second one"),
        ({"train.learning_rate": {"log_uniform": [0, 1]}}, "log_uniform.0: input should be greater than 0"),
        ({"train.learning_rate": {"unifrom": [1, 2]}}, "did you mean 'settings.train.learning_rate.uniform'?"),
        ({"train.learning_rate": {"uniform": [1, 2], "choice": [1, 2]}}, "give exactly one of uniform"),
        ({"train.batch_size": {"choice": [8, 8]}}, "a value is given more than once"),
        ({"train.loss.name": {"choice": ["softmax", "sotfmax"]}}, '"sotfmax" is refused: train.loss.name'),
        ({"train.loss": {"choice": [1, 2]}}, "1 is refused: train.loss: this is a section with keys of its own"),
    ],
)
def test_wrong_settings_are_named_with_their_line(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, settings={"train.weight_decay": {"uniform": [0.0, 0.1]}, **settings})
    assert message in str(caught.value)
    assert f"({tmp_path}/space.yaml, line " in str(caught.value)
    assert int(str(caught.value).partition("space.yaml, line ")[2].partition(")")[0]) > 5


def test_a_budget_is_required_and_a_configuration_is_no_space(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a budget: trials, minutes, or both"):
        _load(tmp_path, "trials=null")
    assert _load(tmp_path, "trials=null", "minutes=5").space.minutes == 5
    with pytest.raises(ConfigError, match=r"base\.yaml is a configuration, not a search space"):
        load_space(tmp_path / "base.yaml", tmp_path / "space.yaml")


@pytest.mark.parametrize("name", ["small", "large", "dreamrec"])
def test_ready_made_spaces_are_valid(name: str) -> None:
    dreamrec = ("model.backbone.name=dreamrec", "train.loss.name=diffusion", "train.loss.similarity=dot")
    config = SPACES.parent / ("million.yaml" if name == "large" else "quickstart.yaml")
    space = load_space(SPACES / f"{name}.yaml", config, dreamrec if name == "dreamrec" else ())
    assert tunable(space).space == space.space  # each setting changes what is trained
