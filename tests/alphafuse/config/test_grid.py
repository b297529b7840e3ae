"""Grids: the configuration of each method, and errors that name the keys of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from alphafuse.config import Config, GridConfig, load_config, load_grid
from alphafuse.errors import ConfigError

BASE: dict[str, Any] = {
    "workspace": "runs/x",
    "seed": 5,
    "data": {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}},
    "model": {"encoder": {"name": "alphafuse", "fusion": "replace"}},
}
METHODS: list[dict[str, Any]] = [
    {"name": "IDs", "set": {"model": {"encoder": {"name": "id"}}}},
    {"name": "AlphaFuse", "set": ["train.batch_size=16"]},
    {"name": "normal", "set": {"model": {"encoder": {"initialization": "normal"}}}},
]


def _load(folder: Path, *overrides: str, **grid: Any) -> tuple[GridConfig, dict[str, Config]]:
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "base.yaml").write_text(yaml.safe_dump(BASE))
    tree = {"base": "configs/base.yaml", "workspace": "runs/all", "methods": METHODS, **grid}
    (folder / "grid.yaml").write_text(yaml.safe_dump(tree))
    return load_grid(folder / "grid.yaml", overrides)


def test_methods_are_the_base_with_their_settings(tmp_path: Path) -> None:
    grid, configs = _load(tmp_path, "set.train.max_epochs=7", set={"train": {"patience": 3}})
    assert [config.train.max_epochs for config in configs.values()] == [7, 7, 7]
    assert [config.train.patience for config in configs.values()] == [3, 3, 3]
    assert [config.train.batch_size for config in configs.values()] == [64, 16, 64]
    _, changed = _load(tmp_path, "train.batch_size=8", "workspace=runs/other", set={"train": {"batch_size": 32}})
    assert {(each.train.batch_size, each.workspace) for each in changed.values()} == {(8, "runs/other")}
    with pytest.raises(ConfigError, match=r"method IDs: trian: unknown key; did you mean 'train'\?"):
        _load(tmp_path, "trian.batch_size=8")
    assert configs["IDs"].model.encoder.name == "id"  # another name: nothing is left of the base's encoder
    encoder = configs["normal"].model.encoder
    assert (encoder.fusion, encoder.initialization) == ("replace", "normal")  # type: ignore[union-attr]
    seeds = {(config.seed, config.data.split.seed, config.decompose.seed) for config in configs.values()}
    assert seeds == {(5, 5, 5)}
    assert {config.workspace for config in configs.values()} == {"runs/all"}
    assert grid.reference == "AlphaFuse"
    assert _load(tmp_path, "against=IDs")[0].reference == "IDs"
    assert _load(tmp_path, "against=ids")[0].reference == "IDs"
    assert _load(tmp_path, methods=METHODS[2:])[0].reference == "normal"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"sedes": [1]}, "sedes: unknown key; did you mean 'seeds'?"),
        ({"methods": [{"nam": "x"}]}, "methods.0.nam: unknown key; did you mean 'methods.0.name'?"),
        ({"methods": [{"name": "a/b"}]}, "methods.0.name: string should match"),
        ({"methods": []}, "methods: tuple should have at least 1 item"),
        ({"methods": [{"name": "x"}, {"name": "X"}]}, "the name 'x' is given more than once"),
        ({"seeds": [1, 1]}, "the seed 1 is given more than once"),
        ({"against": "nobody"}, "against: there is no 'nobody'; there are IDs, AlphaFuse, normal"),
        ({"ensembles": [{"name": "e", "of": ["IDs", "e"]}]}, "ensemble e: there is no 'e'; there are IDs"),
        ({"ensembles": [{"name": "e", "of": ["IDs"]}]}, "ensembles.0.of: tuple should have at least 2 items"),
        ({"ensembles": [{"name": "e", "of": ["IDs", "IDs"]}]}, "the member of the ensemble e 'IDs' is given more than"),
        ({"metrics": ["ndcg@7"]}, "metrics: 'ndcg@7' is not measured by IDs; valid: hr@1"),
        ({"base": "nothing.yaml"}, "cannot read the configuration .*nothing.yaml"),
        ({"set": {"train": {"lr": 1}}}, "method IDs: train.lr: unknown key; did you mean 'train.learning_rate'?"),
        ({"methods": [*METHODS, {"name": "z", "set": ["seed"]}]}, "method z: --set 'seed': expected key.path=value"),
        (
            {"methods": [*METHODS, {"name": "z", "set": {"data": {"min_user_interactions": 9}}}]},
            "the methods IDs and z differ in data: what is compared must answer the same queries",
        ),
        ({"methods": [*METHODS, {"name": "z", "set": {"seed": 9}}]}, "IDs and z differ in seed"),
        *(
            ({"methods": [*METHODS, {"name": "z", "set": {"evaluate": changed}}]}, "IDs and z differ in evaluate")
            for changed in ({"exclude_seen": False}, {"tail_share": 0.5}, {"short_history": 9}, {"tail_user_length": 3})
        ),
    ],
)
def test_errors_are_told_in_the_words_of_the_file(tmp_path: Path, grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _load(tmp_path, **grid)


def test_texts_may_differ(tmp_path: Path) -> None:
    other = {"name": "titles", "set": {"data": {"catalog": {"text": "{title}"}}}}
    assert _load(tmp_path, methods=[*METHODS, other])[1]["titles"].data.catalog.text == "{title}"


def test_the_example_is_valid() -> None:
    grid, configs = load_grid(Path(__file__).parents[3] / "configs" / "grids" / "quickstart.yaml")
    assert grid.reference == "AlphaFuse"
    assert configs["IDs"].model.encoder.name == "id"


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "configs" / "grids").glob("*.yaml")), ids=lambda p: p.name
)
def test_ready_made_grids_are_valid(path: Path) -> None:
    grid, configs = load_grid(path)
    assert list(configs) == [method.name for method in grid.methods]


def test_a_grid_and_a_configuration_are_told_apart(tmp_path: Path) -> None:
    _load(tmp_path)
    with pytest.raises(ConfigError, match=r"grid\.yaml is the grid of a comparison.*: alphafuse compare"):
        load_config(tmp_path / "grid.yaml")
    with pytest.raises(ConfigError, match=r"base\.yaml is the configuration of one run.*: alphafuse run"):
        load_grid(tmp_path / "configs" / "base.yaml")
