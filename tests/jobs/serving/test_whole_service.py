"""`alphafuse serve` as a user runs it: two replicas, a registry, another model, a damaged one, a lost replica."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from support.processes.listening import addresses
from support.processes.waiting import wait_until
from support.workspaces.exported_model import exported
from support.workspaces.tiny_workspace import tiny_sequences

from alphafuse.registry.version_registry import Registry
from alphafuse.serving.recommender import load
from alphafuse.storage.workspace import Workspace
from benchmarks.serve import Service, serving
from monitoring.metrics.targets import read_targets

WAIT_SECONDS = 120.0
HISTORIES = [[f"item {item}" for item in history] for history in tiny_sequences()]

pytestmark = pytest.mark.engine


@dataclass
class Case:
    """A service that serves version 1 at first; version 2 is whole, version 3 damaged."""

    service: Service
    registry: Registry
    folder: Path
    wanted: dict[str, list[list[str]]]

    def ask(self, number: int) -> tuple[str, list[str]]:
        """The version that answers a history, and the items of its answer."""
        headers = {"Authorization": f"Bearer {self.service.token}"}
        body = {"history": HISTORIES[number], "k": 5}
        answer = requests.post(f"{self.service.url}/recommend", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return found["version"], [item["item_id"] for item in found["items"]]

    def replicas(self) -> set[str]:
        """The replicas whose metrics are served."""
        page = requests.get(f"{self.service.url}/metrics", timeout=60).text
        return {*re.findall(r'^alphafuse_serve_batches_total{replica="(\w+)"}', page, re.MULTILINE)}

    def versions(self, asked: int = 24) -> set[str]:
        """The versions that answer now; every answer is the list of the version that it names."""
        versions = set()
        for number in range(asked):
            version, items = self.ask(number % len(HISTORIES))
            assert items == self.wanted[version][number % len(HISTORIES)]
            versions.add(version)
        return versions


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("service")
    registry, wanted = Registry(str(folder / "registry")), {}
    for number, encoder in enumerate(("alphafuse", "id", "llminit")):
        workspace = folder / f"run-{number}"
        exported(workspace, {"encoder": {"name": encoder}})
        version = registry.add(Workspace(str(workspace))).id
        wanted[version] = [[item.item_id for item in items] for items in load(workspace).recommend(HISTORIES, 5)]
    registry.promote("v0001", None)
    settings = ["serve.replicas=2", "ray.num_cpus=2", f"monitoring.targets={folder}/targets"]
    options = [part for each in settings for part in ("--set", each)]
    with serving(folder, "--registry", str(folder / "registry"), *options) as service:
        yield Case(service, registry, folder, wanted)
    log = (folder / "serve.log").read_text()
    assert log.endswith("stopped\n"), log
    assert read_targets(folder / "targets") == []


def _replicas() -> list[psutil.Process]:
    """The processes of replicas below this one, however deep: those of Ray belong to its raylet."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed, or waits to be asked for its status
            if "ServeReplica" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_answers_are_the_offline_lists_and_all_ports_are_of_the_loopback_address(case: Case) -> None:
    assert case.versions() == {"v0001"}
    assert len(case.replicas()) == 2
    assert case.service.version() == "v0001"
    assert requests.post(f"{case.service.url}/recommend", json={"history": []}, timeout=30).status_code == 401
    listening = addresses(psutil.Process().children(recursive=True))
    assert len(_replicas()) == 2
    assert int(case.service.url.rsplit(":", 1)[1]) in {port for _, port in listening}
    assert {address for address, _ in listening} <= {"127.0.0.1", "::1"}
    # Once Ray Serve has told that all replicas answer.
    wait_until(lambda: read_targets(case.folder / "targets") != [], WAIT_SECONDS)
    (target,) = read_targets(case.folder / "targets")
    assert target["targets"] == [case.service.url.removeprefix("http://")]
    assert case.service.token not in (case.folder / "serve.log").read_text()


def test_another_version_is_taken_over_by_all_replicas(case: Case) -> None:
    case.registry.promote("v0002", "v0001")
    wait_until(lambda: case.versions() == {"v0002"}, WAIT_SECONDS)
    # Metrics are two seconds old.
    wait_until(lambda: case.service.count('alphafuse_serve_reloads_total{outcome="swapped"') == 2, WAIT_SECONDS)
    wait_until(lambda: case.service.count("alphafuse_serve_outdated") == 0, WAIT_SECONDS)


def test_a_damaged_version_is_refused_and_a_lost_replica_comes_back_with_the_old_one(case: Case) -> None:
    file = min((case.folder / "run-2" / "export").glob("vectors-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    case.registry.promote("v0003", "v0002")
    wait_until(lambda: case.service.count('alphafuse_serve_reloads_total{outcome="refused"') > 0, WAIT_SECONDS)
    wait_until(lambda: case.service.count("alphafuse_serve_outdated") == 2, WAIT_SECONDS)
    assert case.versions() == {"v0002"}
    before = case.replicas()
    _replicas()[0].kill()
    wait_until(lambda: len(case.replicas() - before) == 1, WAIT_SECONDS)
    assert case.versions() == {"v0002"}
    case.registry.rollback()
    wait_until(lambda: case.service.count("alphafuse_serve_outdated") == 0, WAIT_SECONDS)
