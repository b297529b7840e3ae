"""The declared stages: their order, the stages that a run needs, and the content of fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config, load_grid
from alphafuse.config.sections.resources import EngineResources, RankResources, Resources, TaskResources
from alphafuse.errors import ConfigError
from alphafuse.items.encoders.settings import IdConfig, MoRecConfig
from alphafuse.stages import (
    ARTIFACTS,
    DECOMPOSE,
    EMBED,
    EVALUATE,
    EXPORT,
    PREPARE,
    RECOMMEND,
    REPORT,
    STAGES,
    TRAIN,
    and_later,
    find_stage,
    needed_stages,
)
from alphafuse.storage.manifest import fingerprint

GRID = Path(__file__).parents[2] / "configs" / "grids" / "quickstart.yaml"


class FinishedWorkspace:
    """Replaces a workspace whose artefacts are all committed, with their names as fingerprints."""

    def artifact(self, name: str) -> Any:
        manifest = type("Manifest", (), {"fingerprint": f"fp-{name}"})
        return type("Artifact", (), {"require": lambda self: manifest})()


def _with_encoder(config: Config, encoder: Any) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"encoder": encoder})})


def test_a_run_has_all_stages_but_those_for_texts_that_its_model_does_not_read(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert needed_stages(config) == list(STAGES)
    assert needed_stages(config, DECOMPOSE) == [PREPARE, EMBED, DECOMPOSE]
    no_text = [PREPARE, TRAIN, EVALUATE, RECOMMEND, EXPORT, REPORT]
    assert needed_stages(_with_encoder(config, IdConfig())) == no_text
    assert needed_stages(_with_encoder(config, MoRecConfig()), TRAIN) == [PREPARE, EMBED, TRAIN]


def test_stages_are_found_by_their_names_and_artefacts() -> None:
    assert [find_stage(stage.name) for stage in STAGES] == list(STAGES)
    assert and_later(EXPORT) == (EXPORT, REPORT)
    assert [ARTIFACTS[name].name for name in ("catalog", "popularity", "features", "model")] == [
        "prepare",
        "prepare",
        "decompose",
        "train",
    ]
    with pytest.raises(ConfigError, match="there is no stage 'tran'; stages: prepare, embed, decompose, train"):
        find_stage("tran")


@pytest.mark.parametrize(
    ("row", "trained", "evaluated"),
    [
        (
            "AlphaFuse",
            "269016e8ef7fd94a23c6521e70b407d7fb5827a4a130770e14642a070f5452a4",
            "163021cc8927b915de85935fe6f947f56b0bb0244691e028249732c425ff0a98",
        ),
        (
            "IDs",
            "a4bb0aa99aa9f9c059ab8bf4347c4ead0d8f40e655a806658dc87ab4312dd1c5",
            "163021cc8927b915de85935fe6f947f56b0bb0244691e028249732c425ff0a98",
        ),
    ],
)
def test_fingerprints_are_those_of_earlier_versions(row: str, trained: str, evaluated: str) -> None:
    """Literals made by version 0.1.0 (commit f7a612f): workspaces of that version are used and not refused, where the
    configuration says the defaults of then. With other values they are not mistaken for what these would give."""
    workspace: Any = FinishedWorkspace()
    of_then = ["model.hidden_dim=128", "model.backbone.dropout=0.1", "train.averaging=null"]
    config = load_grid(GRID, of_then)[1][row]
    assert fingerprint(TRAIN.inputs(config, workspace)) == trained
    assert fingerprint(EVALUATE.inputs(config, workspace)) == evaluated
    others = [[each for each in of_then if each != left_out] for left_out in of_then]
    for settings in ([*of_then, "train.masking=0.2"], *others):
        config = load_grid(GRID, settings)[1][row]
        assert fingerprint(TRAIN.inputs(config, workspace)) != trained


def test_resources_change_no_fingerprint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    elsewhere = config.model_copy(
        update={
            "data": config.data.model_copy(update={"resources": Resources(workers=3, pool="cpu")}),
            "embed": config.embed.model_copy(update={"resources": EngineResources(gpus=1), "batch_size": 7}),
            "decompose": config.decompose.model_copy(update={"resources": TaskResources(cpus=4, gpus=1)}),
            "train": config.train.model_copy(
                update={"resources": RankResources(workers=9, environment={"A": "b"}), "checkpoint_steps": 3}
            ),
            "evaluate": config.evaluate.model_copy(update={"query_batch": 3}),
        }
    )
    shown = [stage.resources_of(elsewhere) for stage in STAGES if stage.resources]
    assert [resources.workers for resources in shown] == [3, 1, None, 9, 9, 9, 9]
    for stage in STAGES[:-1]:  # the report shows all settings
        assert stage.settings(elsewhere) == stage.settings(config)
    other = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 99})})
    assert TRAIN.settings(other) != TRAIN.settings(config)
