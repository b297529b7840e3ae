"""The work that fits on a cluster, now and after growth; machines are made up, in the form of `ray.nodes`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config, NodeGroupConfig, parse_config
from alphafuse.config.sections.resources import EngineResources, Resources
from alphafuse.errors import ConfigError, ResourceError
from alphafuse.stages import DECOMPOSE, EMBED, PREPARE, REPORT, TRAIN
from alphafuse.storage.workspace import Workspace
from jobs.execution.placement import (
    growing,
    missing_places,
    on_pool,
    require_places,
    require_shared,
    room,
    task_options,
    task_slots,
)
from jobs.preflight import require_room, waiting

Machines = Callable[..., None]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Sets the machines of the cluster: one mapping of resources for each machine that is alive."""

    def have(*resources: dict[str, float]) -> None:
        nodes = [
            {"Alive": True, "NodeManagerAddress": f"10.0.0.{number}", "Resources": each}
            for number, each in enumerate(resources)
        ]
        monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}])

    return have


@pytest.mark.parametrize(
    ("cpus", "gpus", "places"),
    [(1, 0, 11), (2, 0, 5), (4, 0, 2), (9, 0, 0), (1, 1, 2), (1, 0.5, 4), (0.5, 0.25, 8), (3, 1, 2), (0, 1, 2)],
)
def test_workers_fit_on_machines_and_not_on_their_sum(
    machines: Machines, cpus: float, gpus: float, places: int
) -> None:
    machines({"CPU": 3.0}, {"CPU": 8.0, "GPU": 2.0}, {})
    assert room(_takes(cpus=cpus, gpus=gpus)) == places


def test_a_pool_counts_its_own_machines_alone(machines: Machines) -> None:
    machines({"CPU": 8.0, "cpu": 1.0}, {"CPU": 8.0, "GPU": 4.0, "gpu-train": 1.0}, {"CPU": 2.0})
    assert room(_takes(pool="cpu")) == 8
    assert room(_takes(gpus=1, pool="gpu-train")) == 4
    assert room(_takes(gpus=1, pool="cpu")) == 0
    assert on_pool(None) == {}
    ((name, share),) = on_pool("cpu").items()
    assert name == "cpu"
    assert 8 * share < 1  # as many workers as the machine has CPUs share its one
    message = r"workers asks for 9 .* on machines of the pool 'cpu', but the cluster has room for 8 \(3 machines"
    with pytest.raises(ResourceError, match=message):
        require_places("embed.resources", _takes(workers=9, pool="cpu"))
    with pytest.raises(ResourceError, match=r"data.resources.workers asks .* pool 'far', .*, see data.resources.pool"):
        task_slots("data.resources", Resources(pool="far"))
    assert task_slots("data.resources", Resources()) == 18
    assert task_slots("data.resources", Resources(workers=5)) == 5
    assert task_slots("data.resources", Resources(workers=50)) == 18


def test_machines_that_may_come_count_and_are_waited_for(machines: Machines) -> None:
    groups = {"gpu": NodeGroupConfig(max_nodes=3, cpus=8, gpus=2)}
    machines({"CPU": 0.0})
    with pytest.raises(ResourceError, match=r"name the machines that it may add in ray.node_groups"):
        require_places("train.resources", _takes(workers=6, gpus=1))
    with growing(groups):
        require_places("train.resources", _takes(workers=6, gpus=1, pool="gpu"))
        assert room(_takes(gpus=1, pool="gpu"), grown=True) == 6
        assert room(_takes(gpus=1, pool="gpu")) == 0
        assert task_slots("data.resources", Resources(pool="gpu")) == 24
        assert "there is room for 0 now" in (
            missing_places("train.resources", _takes(workers=6, gpus=1, pool="gpu")) or ""
        )
        with pytest.raises(ResourceError, match=r"room for 6 .* may grow to 3 of 'gpu' with 8 CPUs and 2 GPUs"):
            require_places("train.resources", _takes(workers=7, gpus=1, pool="gpu"))
        machines({"CPU": 0.0}, {"CPU": 8.0, "GPU": 2.0, "gpu": 1.0}, {"CPU": 8.0, "GPU": 2.0, "gpu": 1.0})
        assert room(_takes(gpus=1, pool="gpu")) == 4
        assert room(_takes(gpus=1, pool="gpu"), grown=True) == 6  # two of the three have started already
        assert missing_places("train.resources", _takes(workers=4, gpus=1, pool="gpu")) is None
    assert room(_takes(gpus=1, pool="gpu"), grown=True) == 4


def test_a_local_workspace_is_refused_where_machines_may_come(machines: Machines, tmp_path: Path) -> None:
    machines({"CPU": 4.0})
    require_shared(Workspace(str(tmp_path)))
    with growing({"cpu": NodeGroupConfig(max_nodes=1, cpus=1)}):
        with pytest.raises(ResourceError, match=r"may add others\. Give a URI"):
            require_shared(Workspace(str(tmp_path)))
        require_shared(Workspace(f"file://{tmp_path}"))


def test_a_task_takes_what_its_resources_say() -> None:
    assert task_options(Resources()) == {"num_cpus": 1, "resources": {}}
    options = task_options(_takes(cpus=2, gpus=0.5, pool="gpu", environment={"HF_HUB_OFFLINE": "1"}))
    assert options == {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "resources": on_pool("gpu"),
        "runtime_env": {"env_vars": {"HF_HUB_OFFLINE": "1"}},
    }


def _takes(**resources: Any) -> EngineResources:
    return EngineResources(**{"cpus": 1, **resources})


def _asking(folder: Path, engine: str = "auto", **resources: dict[str, Any]) -> Config:
    tree = tiny_config(folder).model_dump(mode="json")
    tree["embed"]["engine"] = engine
    for section, settings in resources.items():
        tree[section]["resources"] |= settings
    return parse_config(tree)


@pytest.mark.parametrize(
    ("sections", "asked"),
    [
        ({"data": {"pool": "far"}}, "data.resources.workers asks for"),
        ({"embed": {"gpus": 1}}, "embed.resources.workers asks for 1 workers with 1 CPUs and 1 GPUs"),
        ({"decompose": {"workers": 5}}, "decompose.resources.workers asks for 5"),
        ({"decompose": {"gpus": 0.5}}, "decompose.resources.workers asks for 1 workers with 1 CPUs and 0.5 GPUs"),
        ({"train": {"workers": 5}}, "train.resources.workers asks for 5"),
        ({"train": {"workers": 9, "min_workers": 5}}, "train.resources.workers asks for 5"),
    ],
)
def test_all_stages_are_checked_before_the_first_begins(
    machines: Machines, tmp_path: Path, sections: dict[str, Any], asked: str
) -> None:
    stages = [PREPARE, EMBED, DECOMPOSE, TRAIN, REPORT]
    machines({"CPU": 4.0})
    workspace = Workspace(str(tmp_path / "run"))
    require_room(_asking(tmp_path / "run"), workspace, stages, None)
    require_room(_asking(tmp_path / "run", train={"workers": 9, "min_workers": 4}), workspace, stages, None)
    with pytest.raises(ResourceError, match=asked):
        require_room(_asking(tmp_path / "run", **sections), workspace, stages, None)


def test_a_stage_that_waits_for_machines_says_for_what(machines: Machines, tmp_path: Path) -> None:
    config = _asking(tmp_path / "run", data={"pool": "cpu"}, train={"workers": 3, "pool": "cpu"})
    workspace = Workspace(str(tmp_path / "run"))
    machines({"CPU": 0.0})
    with growing({"cpu": NodeGroupConfig(max_nodes=2, cpus=2)}):
        require_room(config, workspace, [PREPARE, TRAIN], None)
        assert "data.resources asks for 1 workers" in (waiting(config, workspace, PREPARE) or "")
        message = waiting(config, workspace, TRAIN) or ""
        assert "train.resources asks for 3 workers with 1 CPUs and 0 GPUs each on machines of the pool 'cpu'" in message
        machines({"CPU": 0.0}, {"CPU": 2.0, "cpu": 1.0}, {"CPU": 2.0, "cpu": 1.0})
        assert waiting(config, workspace, TRAIN) is None
    machines({"CPU": 0.0})
    assert waiting(config, tiny_workspace(tmp_path / "run"), PREPARE) is None  # it has nothing to do


def test_what_is_finished_needs_no_machines_unless_it_is_made_again(machines: Machines, tmp_path: Path) -> None:
    machines({"CPU": 1.0})
    workspace = tiny_workspace(tmp_path / "run")
    config = _asking(tmp_path / "run", decompose={"workers": 5}, train={"workers": 1})
    require_room(config, workspace, [DECOMPOSE, TRAIN], None)
    require_room(config, workspace, [DECOMPOSE, TRAIN], TRAIN)
    with pytest.raises(ResourceError, match=r"decompose\.resources\.workers asks for 5"):
        require_room(config, workspace, [DECOMPOSE, TRAIN], DECOMPOSE)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"embed": {"gpus": 1.5}}, "must be a whole number, or less than 1"),
        ({"embed": {"gpus": 2}, "engine": "sentence_transformers"}, "uses one GPU at most"),
        ({"train": {"gpus": 0.5, "workers": 2}}, "ranks cannot share a GPU"),
        ({"train": {"gpus": 2}}, "train.resources.gpus"),
        ({"decompose": {"gpus": 2}}, "decompose.resources.gpus"),
    ],
)
def test_gpus_that_nobody_could_use_are_refused(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _asking(tmp_path / "run", **sections)
