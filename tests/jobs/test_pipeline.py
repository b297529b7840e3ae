"""The order of the stages, skipping, redoing. The work of each stage has tests of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.workspaces.made_versions import made_workspace
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config, ExportConfig, parse_config
from alphafuse.errors import (
    ConfigError,
    DataError,
    OwnershipError,
    ResourceError,
    StaleError,
    UnfinishedError,
    WorkspaceError,
)
from alphafuse.events import (
    ArtifactCommitted,
    Event,
    StageFailed,
    StageFinished,
    StageRefused,
    StageSkipped,
    StageStarted,
    StageWarning,
    Summary,
    ignore,
)
from alphafuse.extras import MissingPackageError
from alphafuse.items.encoders.settings import IdConfig, MoRecConfig
from alphafuse.registry.version import Version
from alphafuse.registry.version_registry import Registry
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
    Stage,
    needed_stages,
)
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from jobs import pipeline
from jobs.execution import placement
from monitoring.run_log.event_log import read_events
from monitoring.run_log.heartbeat import own


def _machine(number: int) -> dict[str, Any]:
    """A machine in the form of `ray.nodes`."""
    address = {"NodeManagerAddress": f"10.0.0.{number}", "MetricsExportPort": 0}
    return {"Alive": True, "Resources": {"CPU": 4.0}, **address}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that were called; each commits its artefacts unless they are there."""
    called: list[str] = []

    @contextlib.contextmanager
    def no_ray(config: Any) -> Iterator[None]:
        yield

    def work_of(stage: Stage) -> Any:
        def run(config: Config, workspace: Workspace, listen: Any) -> Summary | None:
            called.append(stage.name)
            if stage.is_finished(workspace):
                return None
            for name in stage.artifacts:
                workspace.artifact(name).commit({})
            return {"made": len(stage.artifacts)}

        return run

    monkeypatch.setattr(pipeline, "connected", no_ray)
    monkeypatch.setattr(placement.ray, "nodes", lambda: [_machine(1)])
    for stage in STAGES:
        monkeypatch.setitem(pipeline.WORK, stage, work_of(stage))
    return called


def _committed(workspace: Workspace) -> list[str]:
    return [name for name in ARTIFACTS if workspace.artifact(name).manifest() is not None]


def test_stages_run_in_order_and_tell_what_they_did(tmp_path: Path, ran: list[str]) -> None:
    config, workspace = tiny_config(tmp_path), Workspace(str(tmp_path))
    events: list[Event] = []
    summaries = pipeline.run_stages(config, workspace, needed_stages(config, TRAIN), events.append)
    assert ran == ["prepare", "embed", "decompose", "train"]
    kinds = [type(event) for event in events if not isinstance(event, ArtifactCommitted)]
    assert kinds == [StageStarted, StageFinished] * 4
    assert [type(event) for event in events if event.stage == "decompose"] == [
        StageStarted, ArtifactCommitted, ArtifactCommitted, StageFinished
    ]  # fmt: skip
    made = {stage.name: summary for stage, summary in summaries.items()}
    assert {event.stage: event.summary for event in events if isinstance(event, StageFinished)} == made
    assert made == {"prepare": {"made": 3}, "embed": {"made": 1}, "decompose": {"made": 2}, "train": {"made": 1}}
    made = [event.artifact for event in events if isinstance(event, ArtifactCommitted)]
    assert made == ["catalog", "sequences", "popularity", "embeddings", "nullspace", "features", "model"]
    before = read_events(workspace, "train")
    events.clear()
    assert pipeline.run_stages(config, workspace, [TRAIN, EVALUATE], events.append) == {EVALUATE: {"made": 1}}
    assert [(event.stage, type(event)) for event in events] == [
        ("train", StageStarted),
        ("train", ArtifactCommitted),
        ("train", StageSkipped),
        ("evaluate", StageStarted),
        ("evaluate", ArtifactCommitted),
        ("evaluate", StageFinished),
    ]
    assert read_events(workspace, "train") + read_events(workspace, "evaluate") == before + events
    assert parse_config(yaml.safe_load((tmp_path / "config.yaml").read_text())) == config


def test_ids_alone_need_no_embeddings(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    model = config.model.model_copy(update={"encoder": IdConfig()})
    stages = needed_stages(config.model_copy(update={"model": model}))
    assert stages == [PREPARE, TRAIN, EVALUATE, RECOMMEND, EXPORT, REPORT]
    assert needed_stages(config) == list(STAGES)


def test_raw_embeddings_need_no_null_space(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    model = config.model.model_copy(update={"encoder": MoRecConfig()})
    stages = needed_stages(config.model_copy(update={"model": model}), TRAIN)
    assert stages == [PREPARE, EMBED, TRAIN]


def _marked(workspace: Workspace) -> dict[str, str]:
    """The content of the file of each artefact that can be read."""
    artifacts = [workspace.artifact(name) for name in ARTIFACTS if workspace.artifact(name).manifest() is not None]
    return {artifact.name: artifact.read_file("mark").decode() for artifact in artifacts}


def _marking(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    """Let stages write a file with this content into each of their artefacts."""

    def work_of(stage: Stage) -> Any:
        def run(config: Config, workspace: Workspace, listen: Any) -> Summary | None:
            left = [name for name in stage.artifacts if workspace.artifact(name).manifest() is None]
            for name in left:
                workspace.artifact(name).write_file("mark", mark.encode(), fingerprint({}))
                workspace.artifact(name).commit({})
            return {"made": len(left)} if left else None

        return run

    for stage in STAGES:
        monkeypatch.setitem(pipeline.WORK, stage, work_of(stage))


def test_redo_makes_a_stage_and_what_follows_beside_what_is_in_use(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, workspace = tiny_config(tmp_path), Workspace(str(tmp_path))
    _marking(monkeypatch, "old")
    pipeline.run_stages(config, workspace, STAGES, lambda event: None)
    _marking(monkeypatch, "new")
    checkpoint = tmp_path / "checkpoints" / "step-1" / "file"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    evaluate = pipeline.WORK[EVALUATE]
    monkeypatch.setitem(pipeline.WORK, EVALUATE, _refuse(DataError("no memory")))
    with pytest.raises(DataError):
        pipeline.run_stages(config, workspace, STAGES, lambda event: None, again=TRAIN)
    assert _marked(Workspace(str(tmp_path))) == dict.fromkeys(ARTIFACTS, "old")
    assert checkpoint.exists()
    monkeypatch.setitem(pipeline.WORK, EVALUATE, evaluate)
    events: list[Event] = []
    pipeline.run_stages(config, workspace, [EVALUATE], events.append)  # goes on with the redo
    (said,) = [event.message for event in events if isinstance(event, StageWarning)]
    assert said.startswith(
        "this run goes on with what --redo began: model, evaluation, recommendations, export, report"
    )
    later = dict.fromkeys(("model", "evaluation"), "new")
    assert _marked(Workspace(str(tmp_path))) == dict.fromkeys(ARTIFACTS, "old") | later
    assert not checkpoint.exists()
    assert pipeline.run_stages(config, workspace, STAGES, lambda event: None) == {
        RECOMMEND: {"made": 1}, EXPORT: {"made": 1}, REPORT: {"made": 1}
    }  # fmt: skip
    assert _marked(Workspace(str(tmp_path))) == dict.fromkeys(list(ARTIFACTS)[:6], "old") | dict.fromkeys(
        list(ARTIFACTS)[6:], "new"
    )
    assert not (tmp_path / "redo").exists()


def test_a_second_redo_keeps_what_the_first_one_has_finished(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old and half-made embeddings stay for those of an earlier stage's redo, which takes over unchanged texts."""
    config, workspace = tiny_config(tmp_path), Workspace(str(tmp_path))
    _marking(monkeypatch, "old")
    pipeline.run_stages(config, workspace, STAGES, lambda event: None)
    _marking(monkeypatch, "new")
    with own(workspace) as heartbeat:
        owner = workspace.guarded(heartbeat.guard)
        pipeline.redo(owner, PREPARE)
        assert owner.redo.reused("embeddings") == workspace.artifact("embeddings").folder
        assert [owner.redo.reused(name) for name in ("catalog", "features")] == [None, None]
        for stage in (PREPARE, EMBED, DECOMPOSE):
            pipeline.WORK[stage](config, owner, lambda event: None)
        pipeline.redo(owner, DECOMPOSE)
        assert _committed(owner) == ["catalog", "sequences", "popularity", "embeddings"]
        pipeline.redo(owner, PREPARE)
        assert _committed(owner) == ["embeddings"]
        pipeline.redo(owner, EMBED)
        assert _committed(owner) == []
        assert owner.redo.reused("embeddings") is None
    assert _marked(workspace) == dict.fromkeys(ARTIFACTS, "old")


def test_what_other_runs_may_need_is_not_replaced(tmp_path: Path, ran: list[str]) -> None:
    config, shared = tiny_config(tmp_path / "run"), Workspace(str(tmp_path / "shared"))
    pipeline.run_stages(config, shared, [PREPARE], lambda event: None)
    run = Workspace(config.workspace)
    run.borrow(dict.fromkeys(("catalog", "sequences", "popularity"), "../shared"))
    pipeline.run_stages(config, run, [PREPARE, TRAIN], lambda event: None)
    before = _tree(tmp_path)
    with pytest.raises(WorkspaceError, match="borrows 'catalog'"):
        pipeline.redo(run, PREPARE)
    assert _tree(tmp_path) == before


def test_redo_waits_until_the_stages_before_have_accepted_the_configuration(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, workspace = tiny_config(tmp_path), Workspace(str(tmp_path))
    pipeline.run_stages(config, workspace, STAGES, lambda event: None)
    ran.clear()
    pipeline.run_stages(config, workspace, STAGES, lambda event: None, again=TRAIN)
    assert _committed(workspace) == list(ARTIFACTS)
    manifests = {name: workspace.artifact(name).folder.read_bytes("manifest.json") for name in ("model", "report")}

    def refuse(config: Config, workspace: Workspace, listen: Any) -> None:
        raise ConfigError("other inputs")

    monkeypatch.setitem(pipeline.WORK, PREPARE, refuse)
    with pytest.raises(ConfigError, match="other inputs"):
        pipeline.run_stages(config, workspace, STAGES, lambda event: None, again=TRAIN)
    assert {name: workspace.artifact(name).folder.read_bytes("manifest.json") for name in manifests} == manifests
    with pytest.raises(ConfigError, match="the stage 'train' to be redone is none of those to run: prepare, embed"):
        pipeline.run_stages(config, workspace, [PREPARE, EMBED], lambda event: None, again=TRAIN)


def _tree(folder: Path) -> dict[str, bytes | None]:
    """All files below a folder with their content, and all folders."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _refuse(error: BaseException) -> Any:
    def work(config: Config, workspace: Workspace, listen: Any) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("until", "last", "error"),
    [
        pytest.param(REPORT, PREPARE, StaleError("made from other inputs"), id="the first stage refuses"),
        pytest.param(REPORT, RECOMMEND, StaleError("made from other inputs"), id="a later stage refuses"),
        pytest.param(DECOMPOSE, TRAIN, StaleError("made from other inputs"), id="a stage refuses its checkpoints"),
        pytest.param(DECOMPOSE, EVALUATE, UnfinishedError("run train first"), id="a stage before has not finished"),
        pytest.param(REPORT, EMBED, ConfigError("there is no such model"), id="a finished stage does not know a model"),
        pytest.param(REPORT, PREPARE, DataError("there is no such file"), id="the sources are gone"),
        pytest.param(REPORT, TRAIN, KeyboardInterrupt(), id="it is stopped before it does anything"),
    ],
)
def test_what_is_refused_leaves_no_trace(
    tmp_path: Path,
    ran: list[str],
    monkeypatch: pytest.MonkeyPatch,
    until: Stage,
    last: Stage,
    error: BaseException,
) -> None:
    config, workspace = tiny_config(tmp_path), Workspace(str(tmp_path))
    pipeline.run_stages(config, workspace, needed_stages(config, until), lambda event: None)
    before = _tree(tmp_path)
    monkeypatch.setitem(pipeline.WORK, last, _refuse(error))
    events: list[Event] = []
    stages = [last] if isinstance(error, UnfinishedError) else STAGES
    with pytest.raises(type(error)):
        pipeline.run_stages(tiny_config(tmp_path, learning_rate=0.5), workspace, stages, events.append)
    assert isinstance(events[-1], StageRefused)
    assert _tree(tmp_path) == before


def test_what_the_cluster_cannot_hold_leaves_no_trace(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "run", workers=99)
    with pytest.raises(ResourceError):
        pipeline.run_stages(config, Workspace(config.workspace), STAGES, lambda event: None)
    assert _tree(tmp_path / "run") == {}


def test_a_second_run_is_refused_while_the_first_one_lives_and_leaves_no_trace(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, refused = tiny_config(tmp_path), []
    commit = pipeline.WORK[TRAIN]

    def train(config: Config, workspace: Workspace, listen: Any) -> Any:
        before = _tree(tmp_path)
        with pytest.raises(OwnershipError, match=rf"is in use by process {os.getpid()} on .*Nothing was changed"):
            pipeline.run_stages(config, Workspace(str(tmp_path)), STAGES, lambda event: None, again=TRAIN)
        refused.append(_tree(tmp_path) == before)
        return commit(config, workspace, listen)

    monkeypatch.setitem(pipeline.WORK, TRAIN, train)
    pipeline.run_stages(config, Workspace(str(tmp_path)), STAGES, lambda event: None)
    assert refused == [True]
    assert _committed(Workspace(str(tmp_path))) == list(ARTIFACTS)


def test_a_run_that_was_taken_over_stops_and_leaves_the_history_to_the_other(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, workspace = tiny_config(tmp_path), Workspace(str(tmp_path))
    commit, logs = pipeline.WORK[TRAIN], []

    def train(config: Config, ours: Workspace, listen: Any) -> Any:
        (tmp_path / "events" / "heartbeat.json").unlink()
        with own(workspace):  # while this process stood still
            logs.append(_tree(tmp_path / "events"))
            return commit(config, ours, listen)

    monkeypatch.setitem(pipeline.WORK, TRAIN, train)
    with pytest.raises(OwnershipError, match="has been taken over by process"):
        pipeline.run_stages(config, workspace, STAGES, lambda event: None)
    assert "model" not in _committed(workspace)
    before, after = logs[0], _tree(tmp_path / "events")
    assert {name for name in after if after[name] != before[name]} == {str(tmp_path / "events" / "heartbeat.json")}


def test_a_failure_is_kept_where_nothing_was_finished(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, workspace = tiny_config(tmp_path), Workspace(str(tmp_path))
    monkeypatch.setitem(pipeline.WORK, EMBED, _refuse(ConfigError("there is no such model")))
    with pytest.raises(ConfigError):
        pipeline.run_stages(config, workspace, STAGES, lambda event: None)
    (_, failed) = read_events(workspace, "embed")
    assert isinstance(failed, StageFailed)
    assert parse_config(yaml.safe_load((tmp_path / "config.yaml").read_text())) == config


def test_a_local_folder_does_not_do_for_several_machines(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement.ray, "nodes", lambda: [_machine(1), _machine(2)])
    config = tiny_config(tmp_path)
    with pytest.raises(ResourceError, match=r"folder of one machine, the cluster has 2.*workspace: file:///"):
        pipeline.run_stages(config, Workspace(str(tmp_path)), [PREPARE], lambda event: None)
    pipeline.run_stages(config, Workspace(f"file://{tmp_path}"), [PREPARE], lambda event: None)
    assert ran == ["prepare"]


def test_every_stage_has_its_work() -> None:
    assert tuple(pipeline.WORK) == STAGES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"onnx": True}, r"export\.onnx needs the package onnxscript, which .*: pip install 'alphafuse\[onnx\]'"),
        ({"index": True}, r"export\.index needs the package usearch, which .*: pip install 'alphafuse\[serve\]'"),
    ],
)
def test_what_the_export_needs_is_asked_for_before_anything_runs(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, settings: dict[str, bool], message: str
) -> None:
    config = tiny_config(tmp_path / "run").model_copy(update={"export": ExportConfig(**settings)})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=message):
        pipeline.run_stages(config, Workspace(config.workspace), needed_stages(config), ignore)
    assert ran == []


def test_a_whole_run_becomes_a_version(tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Added(Registry):
        def add(self, workspace: Workspace) -> Version:
            ran.append(f"added {workspace.name} to {self.folder.uri}")
            return super().add(made_workspace(tmp_path / "made"))

    monkeypatch.setattr(pipeline, "Registry", Added)
    config = tiny_config(tmp_path / "run").model_copy(update={"registry": str(tmp_path / "registry")})
    workspace = Workspace(config.workspace)
    pipeline.run_stages(config, workspace, needed_stages(config, EXPORT), ignore)
    assert not any(name.startswith("added") for name in ran)
    pipeline.run_stages(config, workspace, needed_stages(config), ignore)
    assert ran[-2:] == ["report", f"added run to {tmp_path / 'registry'}"]

    def missing(folder: Any) -> None:
        raise ResourceError("needs obstore")

    monkeypatch.setattr(pipeline, "require_create", missing)
    ran.clear()
    with pytest.raises(ResourceError, match="obstore"):
        pipeline.run_stages(config, workspace, needed_stages(config), ignore)
    assert ran == []
