"""The stages that runs share are made once. The work of each stage has tests of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config
from alphafuse.config.sections.resources import EngineResources, Resources
from alphafuse.errors import ConfigError, WorkspaceError
from alphafuse.events import Event, StageFailed, StageFinished
from alphafuse.items.encoders.settings import IdConfig
from alphafuse.stages import DECOMPOSE, Stage
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from jobs.comparison import shared_making, shared_stages


def _changed(config: Config, section: str, **values: Any) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of the stages that were run; each commits its artefacts, and decompose refuses a scale of 13."""
    folders: list[str] = []

    def run_stages(config: Config, workspace: Workspace, stages: list[Stage], listen: Any) -> None:
        (stage,) = stages
        folders.append(workspace.folder.uri.rsplit("/", 1)[-1])
        if stage is DECOMPOSE:
            workspace.artifact("catalog").require()
            workspace.artifact("embeddings").require()
            if config.decompose.scale == 13:
                raise ConfigError("unlucky")
        for name in stage.artifacts:
            workspace.artifact(name).commit({})
        listen(StageFinished(stage.name))

    monkeypatch.setattr(shared_making, "run_stages", run_stages)
    return folders


def _folders(config: Config) -> list[str]:
    return [shared.folder for shared in shared_stages.shared_stages(config)]


def test_folders_follow_from_what_a_stage_is_made_from(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    prepare, embed, decompose = _folders(config)
    assert [folder.split("-")[0] for folder in (prepare, embed, decompose)] == ["prepare", "embed", "decompose"]
    trained_otherwise = _changed(config, "train", batch_size=3)
    on_more_workers = _changed(
        _changed(config, "embed", resources=EngineResources(workers=4)), "decompose", resources=Resources(workers=4)
    )
    assert _folders(trained_otherwise) == _folders(on_more_workers) == [prepare, embed, decompose]
    assert _folders(_changed(config, "model", encoder=IdConfig())) == [prepare]
    assert _folders(_changed(config, "decompose", scale=7))[:2] == [prepare, embed]
    assert _folders(_changed(config, "decompose", scale=7))[2] != decompose
    assert _folders(_changed(config, "embed", model="other"))[0] == prepare
    assert not set(_folders(_changed(config, "embed", model="other"))[1:]) & {embed, decompose}
    assert not set(_folders(_changed(config, "data", shard_rows=7))) & {prepare, embed, decompose}


def test_each_is_made_once_and_found_by_the_runs(tmp_path: Path, made: list[str]) -> None:
    config = tiny_config(tmp_path)
    configs = [config, _changed(config, "model", encoder=IdConfig()), _changed(config, "decompose", scale=7)]
    folder = Folder(str(tmp_path))
    assert shared_making.make_shared(configs, folder, lambda event: None) == {}
    assert made == [*_folders(config), _folders(configs[2])[2]]
    for number, each in enumerate(configs):
        run = Workspace(str(tmp_path / f"run-{number}"))
        shared_stages.borrow(run, each)
        for name in ("catalog", "sequences", "popularity", *each.model.encoder.reads):
            assert run.artifact(name).manifest() is not None
        assert run.artifact("model").folder.uri == f"{tmp_path}/run-{number}/model"


def test_what_builds_upon_a_failure_is_not_tried(tmp_path: Path, made: list[str]) -> None:
    config = tiny_config(tmp_path)
    unlucky = _changed(config, "decompose", scale=13)
    events: list[Event] = []
    failed = shared_making.make_shared([unlucky, unlucky, config], Folder(str(tmp_path)), events.append)
    assert failed == {_folders(unlucky)[2]: "decompose: unlucky"}
    assert [(event.stage, type(event)) for event in events] == [
        ("prepare", StageFinished),
        ("embed", StageFinished),
        ("decompose", StageFailed),
        ("decompose", StageFinished),
    ]
    assert made == [*_folders(unlucky), _folders(config)[2]]


def test_files_that_are_others_are_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_stages(config: Config, workspace: Workspace, stages: list[Stage], listen: Any) -> None:
        workspace.artifact("catalog").commit({"files": "old"})
        workspace.artifact("catalog").is_committed({"files": "new"})

    monkeypatch.setattr(shared_making, "run_stages", run_stages)
    failed = shared_making.make_shared([tiny_config(tmp_path)], Folder(str(tmp_path)), lambda event: None)
    (message,) = failed.values()
    assert message.endswith("(files: 'old' → 'new'). Give another `workspace`")


def test_a_damaged_or_lost_list_of_borrowed_artefacts_is_written_again(tmp_path: Path, made: list[str]) -> None:
    config = tiny_config(tmp_path / "run")
    shared_making.make_shared([config], Folder(str(tmp_path)), lambda event: None)
    run, path = Workspace(str(tmp_path / "run")), tmp_path / "run" / "borrowed.json"
    shared_stages.borrow(run, config)
    whole = path.read_bytes()
    assert shared_stages.examine_borrowed(run, config) is None
    other = whole.replace(b"decompose-", b"decompose-x")
    for content in (b"", whole[: len(whole) // 2], b'{"catalog": "../../victim"}', other, None):
        path.unlink() if content is None else path.write_bytes(content)
        found = shared_stages.examine_borrowed(Workspace(str(tmp_path / "run")), config)
        assert found is not None
        assert found.finding.file == "borrowed.json"
        found.repair()
        assert path.read_bytes() == whole


def test_what_cannot_be_known_is_left_to_compare(tmp_path: Path) -> None:
    (tmp_path / "borrowed.json").write_bytes(b"{")
    found = shared_stages.examine_borrowed(Workspace(str(tmp_path)), tiny_config(tmp_path))
    assert found is not None
    with pytest.raises(WorkspaceError, match="compare GRID"):
        found.repair()
    (tmp_path / "borrowed.json").unlink()
    assert shared_stages.examine_borrowed(Workspace(str(tmp_path)), tiny_config(tmp_path)) is None
