"""The command line: help, errors without tracebacks, exit codes."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.workspaces.prepare_cases import write_items, write_log
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_config, tiny_workspace
from typer.testing import CliRunner

from alphafuse.events import INTERRUPTED, Event, StageFailed, StageFinished, StageStarted
from alphafuse.stages import STAGES
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from cluster.cli.main import ORDER_OF_USE, app
from monitoring.run_log.event_log import EventLog
from monitoring.run_log.heartbeat import own

runner = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose sources exist."""
    write_items(tmp_path / "items.parquet", [(f"item {number}", f"text {number}") for number in range(NUM_ITEMS)])
    write_log(tmp_path / "log.parquet", [("user", "item 1", 1.0), ("user", "item 2", 2.0)])
    tree = tiny_config(tmp_path / "run").model_dump(mode="json")
    tree["data"]["folder"] = str(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_help_lists_the_commands_in_the_order_of_use_and_imports_nothing_heavy() -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    listed = [match for line in result.output.splitlines() if (match := re.match(r"│ ([a-z][a-z-]*) {2,}\S", line))]
    assert [match[1] for match in listed] == [*ORDER_OF_USE]
    assert len(set(ORDER_OF_USE)) == len(ORDER_OF_USE)
    assert {stage.name for stage in STAGES} <= {*ORDER_OF_USE}
    code = "import sys, cluster.cli.main; print({'torch', 'ray', 'pydantic', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_version_is_shown() -> None:
    assert runner.invoke(app, ["--version"]).output == f"alphafuse {importlib.metadata.version('alphafuse')}\n"


def test_config_show_and_validate(config: Path) -> None:
    told = runner.invoke(app, ["config", "validate", str(config)]).output.splitlines()
    assert told[0] == f"{config} is valid"
    assert [line.split(":")[0] for line in told[1:]] == ["  data.catalog.path", "  data.interactions.path"]
    shown = runner.invoke(app, ["config", "show", str(config), "--set", "train.batch_size=12"])
    assert yaml.safe_load(shown.output)["train"]["batch_size"] == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "validate", "CONFIG", "--set", "train.lr=1"], "did you mean 'train.learning_rate'?"),
        (["config", "validate", "CONFIG", "--set", "data.catalog.text={txt}"], "no column 'txt'; did you mean 'text'?"),
        (["run", "CONFIG", "--set", "data.interactions.path=no.csv"], "data.interactions.path: there is no file"),
        (["prepare", "CONFIG", "--set", "data.interactions.user_id=user"], "no column 'user'; did you mean 'user_id'?"),
        (["run", "missing.yaml"], "cannot read the configuration missing.yaml"),
        (["run", "CONFIG", "--redo", "tran"], "there is no stage 'tran'"),
        (["run", "CONFIG", "--until", "tran"], "there is no stage 'tran'"),
        (["run", "CONFIG", "--until", "embed", "--redo", "train"], "'train' to be redone is none of those to run"),
        (["compare", "missing.yaml"], "cannot read the configuration missing.yaml"),
        (["tune", "CONFIG", "missing.yaml"], "cannot read the configuration missing.yaml"),
        (["tune", "CONFIG", "CONFIG"], "is a configuration, not a search space"),
        (["verify", "CONFIG"], "holds no finished stage: is `workspace` right?"),
        (["serve"], "there is nothing to serve"),
        (["serve", "FOLDER"], "holds no finished export"),
        (["serve", "FOLDER", "--set", "train.max_epochs=3"], "only serve, ray, monitoring can be set"),
        (["serve", "FOLDER", "--set", "serve.serach=exact"], "did you mean 'serve.search'?"),
        (["serve", "--registry", "FOLDER"], "has no version in production"),
        (["serve", "CONFIG"], "holds no finished export"),
        (["run", "CONFIG", "--set", "workspace=FILE/run"], "cannot write into the folder"),
    ],
)
def test_what_a_user_can_cure_is_told_without_a_traceback(config: Path, arguments: list[str], message: str) -> None:
    places = {"CONFIG": config, "FILE": config, "FOLDER": config.parent}
    given = list(arguments)
    for name, place in places.items():
        given = [argument.replace(name, str(place)) for argument in given]
    result = runner.invoke(app, given)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "validate", "\x1b]0;owned\x07\u202e.yaml"],
        ["config", "validate", "CONFIG", "--set", "data.catalog.titel=\x1b[31m\u202e"],
        ["config", "validate", "CONFIG", "--set", "\x1b[31m.key=1"],
        ["config", "show", "CONFIG", "--set", 'data.catalog.text="\\u202e{title}\\x9b"'],
    ],
)
def test_no_control_character_of_a_file_or_a_name_is_printed(config: Path, arguments: list[str]) -> None:
    result = runner.invoke(app, [str(config) if each == "CONFIG" else each for each in arguments])
    printed = result.stdout + result.stderr
    assert printed
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", printed)
    if arguments[1] == "show":  # what is shown can still be read back
        assert yaml.safe_load(result.stdout)["data"]["catalog"]["text"] == "\u202e{title}\x9b"


def test_messages_mask_credentials(config: Path) -> None:
    result = runner.invoke(app, ["config", "validate", str(config), "--set", "monitoring.mlflow=https://hush@host/x"])
    assert result.exit_code == 1
    assert "monitoring.mlflow: this is a section with keys of its own" in result.stderr
    assert "hush" not in result.stderr


@pytest.mark.parametrize("command", ["config validate", "status", "verify"])
def test_what_only_looks_imports_nothing_heavy(config: Path, command: str) -> None:
    code = f"""
import contextlib, sys, typer
from cluster.cli.main import ORDER_OF_USE, app
with contextlib.suppress(typer.Exit, SystemExit):
    app({[*command.split(), str(config)]!r}, standalone_mode=False)
print({{"torch", "ray", "deepspeed", "vllm", "transformers"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.parametrize("command", ["run", "prepare"])
def test_a_run_that_cannot_read_its_sources_starts_and_writes_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    result = runner.invoke(app, [command, str(config), "--set", "data.interactions.item_id=sku"])
    assert result.exit_code == 1
    assert "log.parquet has no column 'sku'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_storage_that_fails_is_told_without_a_traceback(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> bool:
        raise PermissionError("access denied")

    monkeypatch.setattr("alphafuse.storage.filesystem.folder.Folder.exists", fails)
    result = runner.invoke(app, ["verify", str(config)])
    assert result.exit_code == 1
    assert result.stderr == "error: a file, the storage or the network failed: access denied\n"


def test_ctrl_c_says_how_to_go_on(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    monkeypatch.setattr("alphafuse.storage.filesystem.folder.Folder.exists", interrupted)
    result = runner.invoke(app, ["verify", str(config)])
    assert result.exit_code == 130
    assert result.stderr == "interrupted; the same command, without --redo, continues where it stopped\n"


def test_credentials_in_a_configuration_are_refused_by_every_command(config: Path, tmp_path: Path) -> None:
    for command in ("run", "train", "verify", "status"):
        result = runner.invoke(app, [command, str(config), "--set", "workspace=s3://key:letmein@bucket/run"])
        assert result.exit_code == 1
        assert result.stderr.startswith("error: workspace holds credentials")
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        yaml.safe_dump({"base": config.name, "workspace": "s3://key:letmein@bucket/all", "methods": [{"name": "IDs"}]})
    )
    for arguments in (["compare", str(grid)], ["synth", "s3://key:letmein@bucket/data"]):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 1
        assert "holds credentials" in result.stderr


def test_verify_finds_changed_files(config: Path, tmp_path: Path) -> None:
    tiny_workspace(tmp_path / "run")
    result = runner.invoke(app, ["verify", str(config)])
    assert result.exit_code == 0
    assert "catalog: 2 of 2 files as committed" in result.output
    with (tmp_path / "run" / "features" / "part-00001.parquet").open("ab") as file:
        file.write(b"!")
    (tmp_path / "run" / "catalog" / "notes.txt").write_text("mine")
    result = runner.invoke(app, ["verify", str(config)])
    assert result.exit_code == 1
    assert "! features/part-00001.parquet: its checksum differs" in result.output
    assert "is damaged. `alphafuse verify CONFIG --repair`" in result.stderr
    with own(Workspace(str(tmp_path / "run"))):
        result = runner.invoke(app, ["verify", str(config), "--repair"])
        assert result.exit_code == 1
        assert "is in use by process" in result.stderr
    result = runner.invoke(app, ["verify", str(config), "--repair"])
    assert result.exit_code == 0
    assert "features: 1 of 2 files as committed" in result.output
    left = [path.name for path in (tmp_path / "run" / "features").iterdir()]
    assert sorted(left) == ["part-00000.parquet", "part-00000.parquet.record.json"]
    assert (tmp_path / "run" / "catalog" / "notes.txt").read_text() == "mine"


def test_verify_repairs_what_is_made_again_too(config: Path, tmp_path: Path) -> None:
    workspace = tiny_workspace(tmp_path / "run")
    workspace.redo.begin(["features"], reusing=[])
    (again,) = workspace.redone()
    for name in ("part-0.parquet", "part-1.parquet"):
        again.write_file(name, b"new", fingerprint({}))
    again.commit({})
    (tmp_path / "run" / "redo" / "features" / "part-1.parquet").write_bytes(b"odd")
    result = runner.invoke(app, ["verify", str(config)])
    assert result.exit_code == 1
    assert "! redo/features/part-1.parquet: its checksum differs" in result.output
    assert runner.invoke(app, ["verify", str(config), "--repair"]).exit_code == 0
    assert again.manifest() is None
    assert again.committed_files(fingerprint({})).keys() == {"part-0.parquet"}
    assert Workspace(str(tmp_path / "run")).artifact("features").require().rows == NUM_ITEMS


def test_an_update_that_cannot_be_is_refused_before_anything_runs(config: Path, tmp_path: Path) -> None:
    tiny_workspace(tmp_path / "old")
    for parent, said in (("old", "holds no finished 'model'"), ("run", "update.parent is the workspace itself")):
        result = runner.invoke(app, ["update", str(config), "--from", str(tmp_path / parent)])
        assert result.exit_code == 1
        assert said in result.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_names_of_files_reach_the_terminal_as_text(config: Path, tmp_path: Path) -> None:
    tiny_workspace(tmp_path / "run")
    (tmp_path / "run" / "catalog" / "\x1b[2J.parquet").write_text("")
    result = runner.invoke(app, ["verify", str(config)])
    assert "[2J.parquet: no file of this workspace" in result.output
    assert "\x1b" not in result.output


def test_verify_tells_what_only_another_run_cures(config: Path, tmp_path: Path) -> None:
    workspace = tiny_workspace(tmp_path / "run")
    workspace.artifact("evaluation").commit({"sequences": workspace.artifact("sequences").require().fingerprint})
    workspace.artifact("sequences").clear()
    result = runner.invoke(app, ["verify", str(config)])
    assert result.exit_code == 1
    assert "! sequences: it is not finished, but 'evaluation' was made from it" in result.output
    assert "is not complete. `alphafuse run CONFIG` makes what is missing" in result.stderr
    result = runner.invoke(app, ["verify", str(config), "--repair"])
    assert result.exit_code == 0
    assert "try     alphafuse run CONFIG" in result.output


def test_a_damaged_list_of_borrowed_artefacts_ends_every_command_with_its_remedy(config: Path, tmp_path: Path) -> None:
    tiny_workspace(tmp_path / "run")
    (tmp_path / "run" / "borrowed.json").write_text('{"model": "../../victim"}')
    for arguments in (["recommend", str(config), "--history", "a"], ["verify", str(config), "--repair"]):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 1
        assert "borrowed.json" in result.stderr
        assert "alphafuse compare GRID" in result.stderr
        assert "Traceback" not in result.output
    result = runner.invoke(app, ["verify", str(config)])
    assert result.exit_code == 1
    assert "! borrowed.json: " in result.output
    assert "'../../victim'" in result.output or "plain name" in result.output


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (StageFinished("train", {}), 0),
        (StageFailed("train", "no room"), 1),
        (StageFailed("train", INTERRUPTED), 0),
    ],
)
def test_the_status_of_a_failed_run_is_an_error(config: Path, tmp_path: Path, last: Event, code: int) -> None:
    workspace = tiny_workspace(tmp_path / "run")
    with own(workspace):
        log = EventLog(workspace)
        log(StageStarted("train"))
        log(last)
    assert runner.invoke(app, ["status", str(config)]).exit_code == code
    ended = workspace.events.read_bytes("heartbeat.json")
    workspace.events.write_bytes("heartbeat.json", b'{"time": 0, "ended": false}')  # it died without a word
    assert runner.invoke(app, ["status", str(config)]).exit_code == 1
    workspace.events.write_bytes("heartbeat.json", ended)


def test_a_workspace_is_found_beside_its_configuration_from_any_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_workspace(tmp_path / "home" / "run")
    settings = {**tiny_config(tmp_path).model_dump(mode="json"), "workspace": "run"}
    (tmp_path / "home" / "c.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "elsewhere").mkdir()
    for folder, config in (("home", "c.yaml"), ("elsewhere", "../home/c.yaml"), (".", "home/c.yaml")):
        monkeypatch.chdir(tmp_path / folder)
        shown = runner.invoke(app, ["status", config])
        assert shown.exit_code == 0, shown.output
        assert str(tmp_path / "home" / "run") in shown.output.replace("\n", "")
        assert runner.invoke(app, ["verify", config]).exit_code == 0
        chosen = runner.invoke(app, ["status", config, "--set", "workspace=other"])
        assert chosen.exit_code == 1
        assert f"there is no workspace {tmp_path / folder}/other" in chosen.stderr
    tiny_workspace(tmp_path / "elsewhere" / "run")  # that of the current folder comes first
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert str(tmp_path / "elsewhere" / "run") in runner.invoke(app, ["status", "../home/c.yaml"]).output


def test_top_k_goes_with_a_history(config: Path) -> None:
    result = runner.invoke(app, ["recommend", str(config), "--top-k", "3"])
    assert result.exit_code == 2
    assert "recommend.top_k=N" in result.stderr


@pytest.mark.engine
def test_a_stage_that_lacks_its_input_says_which_stage_to_run(config: Path) -> None:
    """The command runs in a process of its own, as it redirects file descriptors."""
    command = [sys.executable, "-c", "from cluster.cli.main import main; main()", "evaluate", str(config)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "holds no finished 'model'; run the stage 'train' first" in result.stderr
    assert len(result.stderr.splitlines()) <= 2


@pytest.mark.engine
def test_recommend_by_hand_needs_a_model(config: Path, tmp_path: Path) -> None:
    tiny_workspace(tmp_path / "run")
    command = [sys.executable, "-c", "from cluster.cli.main import main; main()"]
    command += ["recommend", str(config), "--history", "item 1"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "run the stage 'train' first" in result.stderr
    assert not (tmp_path / "run" / "logs").exists()
    shutil.rmtree(tmp_path / "run")
    assert subprocess.run(command, capture_output=True).returncode == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("failures", "code"), [({}, 0), ({"IDs-22": "no memory"}, 1)])
def test_a_comparison_with_failed_runs_ends_with_an_error(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: dict[str, str], code: int
) -> None:
    from alphafuse.evaluation.comparison.method_comparison import Comparison
    from jobs.comparison import compare

    grid = tmp_path / "grid.yaml"
    grid.write_text(
        yaml.safe_dump({"base": config.name, "workspace": str(tmp_path / "all"), "methods": [{"name": "IDs"}]})
    )
    asked = []

    def run(settings: Any, configs: Any, listen: Any, again: Any) -> Comparison:
        asked.append((settings.seeds, list(configs), again))
        return Comparison([], settings.metrics, settings.reference, None, True, "ndcg@20", {}, failures)

    monkeypatch.setattr(compare, "run", run)
    result = runner.invoke(app, ["compare", str(grid), "--set", "seeds=[22]", "--redo", "IDs"])
    assert result.exit_code == code
    assert ("1 runs failed" in result.stderr) == bool(failures)
    assert asked == [((22,), ["IDs"], ["IDs"])]


@pytest.mark.parametrize("failed", [False, True])
def test_a_tuning_ends_with_its_trials_and_the_best_configuration(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], failed: bool
) -> None:
    from alphafuse.tuning.trials import FAILED, FINISHED, STOPPED, Trial, Tuning
    from jobs.tuning import tune

    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({"minutes": 1, "settings": {"train.batch_size": {"choice": [8, 16]}}}))
    trials = [
        Trial("trial-001", {"train.batch_size": 8}, FAILED if failed else STOPPED, curve=[(1, 0.1)], seconds=3.0),
        Trial("trial-002", {"train.batch_size": 16}, FINISHED, curve=[(1, 0.1), (2, 0.25), (3, 0.2)], seconds=61.0),
    ]
    asked = []

    def run(space: Any, folder: Any, listen: Any, again: bool) -> Tuning:
        asked.append((space.space.trials, space.base.train.max_epochs, folder.uri, again))
        return Tuning("ndcg@20", {}, {}, 64.0, trials)

    monkeypatch.setattr(tune, "run", run)
    overrides = ["--set", "trials=2", "--set", "train.max_epochs=3", "--redo"]
    result = runner.invoke(app, ["tune", str(config), str(space), *overrides])
    folder = f"{yaml.safe_load(config.read_text())['workspace']}-tuned"
    assert asked == [(2, 3, folder, True)]
    assert result.exit_code == (1 if failed else 0), result.output
    assert ("1 trials failed" in result.stderr) == failed
    printed = capfd.readouterr().out  # commands that write a log print past typer's runner
    lines = [line.split() for line in printed.splitlines() if line.strip().startswith("trial")]
    assert lines[0] == ["trial", "state", "NDCG@20", "epoch", "time", "batch_size"]
    assert lines[1] == ["trial-002", "finished", "0.2500", "2", "of", "3", "1", "min", "01", "s", "16"]
    assert f"best    {folder}/best.yaml" in printed


def test_the_addresses_of_runs_are_served_until_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = runner.invoke(app, ["targets", str(tmp_path), "--port", str(taken.getsockname()[1])])
    assert refused.exit_code == 1
    assert "cannot serve on 127.0.0.1:" in refused.output

    def interrupted(server: HTTPServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HTTPServer, "serve_forever", interrupted)
    served = runner.invoke(app, ["targets", str(tmp_path), "--port", "0"])
    assert served.exit_code == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/targets\n", served.output)


def test_a_dashboard_on_a_taken_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = runner.invoke(app, ["dashboard", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "give another one with --port" in result.stderr
