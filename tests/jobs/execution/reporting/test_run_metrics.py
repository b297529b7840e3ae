"""The list of a run's processes as workers come, die and go, and a folder that cannot be written to."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import MonitoringConfig
from alphafuse.errors import ResourceError
from alphafuse.events import Event, FanOut, Metrics, StageStarted, StageWarning, StepTaken, WorkerServing, WorkersGone
from alphafuse.storage.workspace import Workspace
from jobs.execution.reporting import run_metrics as run_metrics_module
from jobs.execution.reporting.run_metrics import run_metrics
from jobs.execution.reporting.worker_metrics import serving, worker_listener
from monitoring.metrics.targets import read_targets, run_label

NODES = [
    {"Alive": True, "NodeManagerAddress": "10.0.0.1", "MetricsExportPort": 8080},
    {"Alive": False, "NodeManagerAddress": "10.0.0.2", "MetricsExportPort": 8080},
]


STEP = StepTaken("train", rank=0, step=1, seconds=0.1, samples=8)
MEASURED = Metrics("train", "validation", {"ndcg@10": 0.25})


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found = list(NODES)
    monkeypatch.setattr(run_metrics_module.ray, "nodes", lambda: found)
    return found


def _listed(folder: Path) -> dict[tuple[str, ...], str]:
    listed = {}
    for entry in read_targets(folder):
        labels: Any = entry["labels"]
        key = tuple(labels[name] for name in ("job", "run", "role", "stage", "worker") if name in labels)
        (listed[key],) = entry["targets"]  # type: ignore[misc]
    return listed


def _scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics") as response:
        return response.read().decode()


def test_processes_are_listed_as_they_come_and_go(tmp_path: Path, nodes: list[dict[str, Any]]) -> None:
    config, folder = tiny_config(tmp_path / "my run"), tmp_path / "my run" / "targets"
    events: list[Event] = []
    run = run_label(Workspace(config.workspace))
    with run_metrics(config, Workspace(config.workspace), events.append) as listen:
        listed = _listed(folder)
        own = listed.pop(("alphafuse", run, "run"))
        assert own.startswith("127.0.0.1:")
        assert listed == {("ray", "machine"): "10.0.0.1:8080"}

        listen(StageStarted("train"))
        assert 'alphafuse_stage_running{stage="train"} 1.0' in _scrape(own)

        listen(WorkerServing("train", "0", "10.0.0.1:1"))
        listen(WorkerServing("train", "1", "10.0.0.1:2"))
        listen(WorkerServing("embed", "0", "10.0.0.1:3"))
        worker = ("alphafuse", run, "worker")
        assert _listed(folder)[*worker, "train", "1"] == "10.0.0.1:2"
        listen(WorkerServing("embed", "0", "10.0.0.1:4"))  # started again
        assert _listed(folder)[*worker, "embed", "0"] == "10.0.0.1:4"
        for rank in range(3):  # ranks of another group, whose last rank comes first
            listen(WorkerServing("train", str(2 - rank), f"10.0.0.1:{7 - rank}", workers=3))
        assert _listed(folder)[*worker, "train", "1"] == "10.0.0.1:6"
        listen(WorkerServing("train", "0", "10.0.0.1:8", workers=2))  # one rank fewer
        assert {key[4]: address for key, address in _listed(folder).items() if key[:4] == (*worker, "train")} == {
            "0": "10.0.0.1:8",
            "1": "10.0.0.1:6",
        }
        listen(WorkersGone("train"))
        assert {key[3:] for key in _listed(folder) if key[:3] == worker} == {("embed", "0")}

        nodes.append({"Alive": True, "NodeManagerAddress": "10.0.0.3", "MetricsExportPort": 8080})
        listen(WorkersGone("embed"))
        assert len(_listed(folder)) == 2  # this run, and two machines under one key
        assert len(read_targets(folder)) == 3
    assert list(folder.iterdir()) == []
    assert events == []


@pytest.mark.parametrize("failure", [None, RuntimeError])
def test_what_a_run_says_last_is_scraped(tmp_path: Path, nodes: Any, failure: type[Exception] | None) -> None:
    config, scraped, ended = tiny_config(tmp_path), [], threading.Event()

    def scrape() -> None:
        (own,) = _listed(tmp_path / "targets").values()
        with contextlib.suppress(OSError):  # the run has ended
            while not ended.wait(0.3):
                scraped.append(_scrape(own))

    nodes.clear()
    with contextlib.ExitStack() as expected, ThreadPoolExecutor(1) as pool:
        if failure is not None:
            expected.enter_context(pytest.raises(failure))
        with run_metrics(config, Workspace(config.workspace), [].append) as listen:
            scraping = pool.submit(scrape)
            while len(scraped) < 2:
                time.sleep(0.01)
            listen(Metrics("evaluate", "test", {"ndcg@10": 0.25}))
            if failure is not None:
                raise failure
        ended.set()
        scraping.result()
    assert 'alphafuse_evaluation_ndcg{k="10",split="test"} 0.25' in scraped[-1]


@pytest.mark.parametrize("scrapes", [0, 1, 2])
def test_a_run_ends_without_those_who_do_not_scrape_it_any_more(tmp_path: Path, nodes: Any, scrapes: int) -> None:
    config = tiny_config(tmp_path)
    nodes.clear()
    with run_metrics(config, Workspace(config.workspace), [].append):
        (own,) = _listed(tmp_path / "targets").values()
        for _ in range(scrapes):
            _scrape(own)


def test_a_process_that_serves_to_its_end_ends() -> None:
    """An embedding engine serves to its end; it would keep its GPU otherwise."""
    program = """
from contextlib import ExitStack
from jobs.execution.reporting.worker_metrics import Serving, worker_listener
kept = ExitStack()
kept.enter_context(worker_listener("embed", "0", Serving("127.0.0.1", None), lambda event: None))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_the_list_goes_with_a_run_that_fails(tmp_path: Path, nodes: Any) -> None:
    config = tiny_config(tmp_path)
    with pytest.raises(KeyError), run_metrics(config, Workspace(config.workspace), [].append):
        raise KeyError
    assert read_targets(tmp_path / "targets") == []


def test_a_run_goes_on_without_a_list(tmp_path: Path, nodes: Any) -> None:
    (tmp_path / "targets").write_text("a file where a folder should be")
    config, events = tiny_config(tmp_path), []
    with run_metrics(config, Workspace(config.workspace), events.append) as listen:
        listen(WorkerServing("train", "0", "10.0.0.1:1"))
    (warning,) = events
    assert isinstance(warning, StageWarning)
    assert "cannot be listed for Prometheus" in warning.message
    assert "monitoring.targets" in warning.message


def _with(tmp_path: Path, **settings: Any) -> Any:
    return tiny_config(tmp_path).model_copy(update={"monitoring": MonitoringConfig(**settings)})


def test_nothing_is_served_if_not_wanted(tmp_path: Path) -> None:
    config, warnings, sent = _with(tmp_path, metrics=False), list[Event](), list[Event]()
    assert serving(config) is None
    with run_metrics(config, Workspace(config.workspace), warnings.append) as listen:
        listen(StageStarted("train"))
    assert not (tmp_path / "targets").exists()
    with worker_listener("train", "0", None, sent.append) as listen:
        listen(STEP)
        listen(MEASURED)
    assert warnings == []
    assert sent == [MEASURED]  # single steps never travel


def test_a_worker_keeps_its_steps_and_sends_the_rest(tmp_path: Path) -> None:
    sent: list[Event] = []
    with worker_listener("train", "1", serving(_with(tmp_path)), sent.append, workers=2) as listen:
        (announced,) = sent
        assert isinstance(announced, WorkerServing)
        assert (announced.stage, announced.worker, announced.workers) == ("train", "1", 2)
        listen(STEP)
        listen(MEASURED)
        assert "alphafuse_train_steps_total 1.0" in _scrape(announced.address)
    assert sent == [announced, MEASURED]


def test_every_listener_gets_every_event_in_turn() -> None:
    first, second = list[Event](), list[Event]()
    fan_out = FanOut(first.append, FanOut(second.append, lambda event: first.append(event)))
    fan_out(STEP)
    fan_out(MEASURED)
    assert first == [STEP, STEP, MEASURED, MEASURED]
    assert second == [STEP, MEASURED]


def test_where_metrics_are_served(tmp_path: Path) -> None:
    local = _with(tmp_path)
    on_cluster = local.model_copy(update={"ray": local.ray.model_copy(update={"address": "auto"})})
    chosen = _with(tmp_path, host="0.0.0.0", first_port=9000)
    found = [serving(config) for config in (local, on_cluster, chosen)]
    assert [(each.host, each.first_port) for each in found if each] == [
        ("127.0.0.1", None),
        (None, None),
        ("0.0.0.0", 9000),
    ]


def test_an_address_that_is_not_there_is_named(tmp_path: Path, nodes: Any) -> None:
    config = _with(tmp_path, host="192.0.2.77")
    with (
        pytest.raises(ResourceError, match=r"192\.0\.2\.77.*monitoring\.host"),
        run_metrics(config, Workspace(config.workspace), [].append),
    ):
        pass
