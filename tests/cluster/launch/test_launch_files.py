"""The files that start clusters elsewhere, checked by the tools and schemas that read them."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray.serve.schema import ServeDeploySchema

from alphafuse.config import NodeGroupConfig, parse_config
from alphafuse.config.sections.serve import ServeConfig
from alphafuse.errors import ClusterError, ConfigError
from cluster.remote.node_groups import read_node_groups
from jobs.execution.ray_internals import autoscaling_config, check_launcher_file, filled_launcher_file
from jobs.serving.application import build

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster" / "launch"
KUBERAY = CLUSTER / "kuberay"
EFA = CLUSTER / "aws_efa.yaml"
LAUNCHER_FILES = [ROOT / "ray_cluster.yaml", CLUSTER / "on_premise.yaml", EFA]
AWS_FILES = [LAUNCHER_FILES[0], EFA]
TOOLS = Path(sys.executable).parent

# Fields of KubeRay's custom resources that the manifests may use, by the API reference of version 1.5.1; the pods are
# checked against the schema of Kubernetes itself.
POD = object()
AUTOSCALER = {"version": str, "idleTimeoutSeconds": int, "resources": dict}
GROUP = {"rayStartParams": dict, "template": POD}
WORKERS = {**GROUP, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
CLUSTER_SPEC = {
    "rayVersion": str,
    "authOptions": {"mode": str},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": AUTOSCALER,
    "headGroupSpec": GROUP,
    "workerGroupSpecs": [WORKERS],
}
JOB_SPEC = {
    "entrypoint": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "submitterPodTemplate": POD,
    "rayClusterSpec": CLUSTER_SPEC,
}
SERVICE_SPEC = {"serveConfigV2": str, "rayClusterConfig": CLUSTER_SPEC}


def _check(value: Any, schema: Any, path: str) -> None:
    if schema is POD:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **value.get("metadata", {})}}
        kubernetes_validate.validate({**pod, "spec": value["spec"]}, "1.32", strict=True)
    elif isinstance(schema, list):
        for number, item in enumerate(value):
            _check(item, schema[0], f"{path}[{number}]")
    elif isinstance(schema, dict):
        assert set(value) <= set(schema), f"{path}: {set(value) - set(schema)}"
        for key, item in value.items():
            _check(item, schema[key], f"{path}.{key}")
    else:
        assert isinstance(value, schema), f"{path}: {value!r}"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERAY / name).read_text()))


def ray_cluster_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "raycluster.yaml", documents("raycluster.yaml")[0]["spec"]
    yield "rayjob.yaml", documents("rayjob.yaml")[1]["spec"]["rayClusterSpec"]
    yield "rayservice.yaml", documents("rayservice.yaml")[0]["spec"]["rayClusterConfig"]


@pytest.mark.parametrize("file", LAUNCHER_FILES, ids=lambda file: file.name)
def test_launcher_files_pass_rays_schema_as_they_are_and_as_filled_in(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    filled = filled_launcher_file(copy.deepcopy(config))
    check_launcher_file(filled)
    assert filled["docker"]["image"]
    broken = {**filled, "max_worker": 3}
    with pytest.raises(Exception, match="max_worker"):
        check_launcher_file(broken)


def test_the_launcher_has_a_head_without_cpus_and_pools_that_grow_from_nothing() -> None:
    config = yaml.safe_load(LAUNCHER_FILES[0].read_text())
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"]["CPU"] == 0
    pools = {name: node for name, node in types.items() if name != config["head_node_type"]}
    assert set(pools) == {"cpu", "gpu-embed", "gpu-train"}
    for name, node in pools.items():
        assert node["resources"][name] == 1
        assert node["min_workers"] == 0 < node["max_workers"]
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert ("GPU" in node["resources"]) == name.startswith("gpu")
    assert "InstanceMarketOptions" not in types["head"]["node_config"]


@pytest.mark.parametrize("file", AWS_FILES, ids=lambda file: file.name)
def test_machines_of_aws_are_in_one_zone_and_those_with_gpus_have_a_driver(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    zone = config["provider"]["availability_zone"]
    assert "," not in zone
    for name, node in config["available_node_types"].items():
        if "GPU" in node["resources"]:
            assert "base-oss-nvidia-driver-gpu" in node["node_config"]["ImageId"]
            options = node["docker"]["worker_run_options"]
            assert {"--gpus=all", "--ulimit memlock=-1:-1"} <= set(options)
            assert any(option.startswith("--shm-size=") for option in options)
        if name.startswith("gpu-train"):
            assert node["node_config"]["Placement"] == {"GroupName": config["cluster_name"], "AvailabilityZone": zone}


def test_every_card_of_a_machine_with_efa_has_an_interface() -> None:
    """As EC2 asks for: the first card's interface is the machine's, with index 0; those of all others have index 1."""
    config = yaml.safe_load(EFA.read_text())
    node = config["available_node_types"]["gpu-train-rdma"]
    interfaces = node["node_config"]["NetworkInterfaces"]
    assert [each["NetworkCardIndex"] for each in interfaces] == list(range(32))
    assert [each["DeviceIndex"] for each in interfaces] == [0] + 31 * [1]
    assert {each["InterfaceType"] for each in interfaces} == {"efa"}
    assert "--device=/dev/infiniband" in node["docker"]["worker_run_options"]
    everywhere = [
        (each["SubnetId"], *each["Groups"])
        for kind in config["available_node_types"].values()
        for each in kind["node_config"]["NetworkInterfaces"]
    ]
    assert len(set(everywhere)) == 1


@pytest.mark.parametrize("file", LAUNCHER_FILES, ids=lambda file: file.name)
def test_launched_clusters_ask_for_a_token_and_keep_the_dashboard_to_themselves(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    starts = [
        command
        for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all(command.startswith("export RAY_AUTH_MODE=token;") for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("file", LAUNCHER_FILES, ids=lambda file: file.name)
def test_start_commands_are_shell_that_parses(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_kuberay_manifests_use_fields_that_there_are() -> None:
    (cluster,) = documents("raycluster.yaml")
    config_map, job = documents("rayjob.yaml")
    (policy,) = documents("networkpolicy.yaml")
    (service,) = documents("rayservice.yaml")
    kinds = ((cluster, "RayCluster", CLUSTER_SPEC), (job, "RayJob", JOB_SPEC), (service, "RayService", SERVICE_SPEC))
    for document, kind, schema in kinds:
        assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        _check(document["spec"], schema, kind)
    for document in (config_map, policy):
        kubernetes_validate.validate(document, "1.32", strict=True)
    broken = copy.deepcopy(cluster["spec"])
    broken["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagee"):
        _check(broken, CLUSTER_SPEC, "RayCluster")


@pytest.mark.parametrize(
    ("name", "spec"),
    [(name, spec) for name, spec in ray_cluster_specs() if "enableInTreeAutoscaling" in spec],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rays_autoscaler_reads_the_manifests_as_they_are_meant(name: str, spec: dict[str, Any]) -> None:
    resource = {"metadata": {"name": "alphafuse", "namespace": "default"}, "spec": spec}
    types = autoscaling_config(resource)["available_node_types"]
    assert types.pop("headgroup")["resources"]["CPU"] == 0
    for group, node in types.items():
        assert node["resources"][group] == 1
        assert node["resources"].get("GPU", 0) == {"cpu": 0, "gpu-embed": 1, "gpu-train": 4, "gpu-train-rdma": 8}[group]
        assert node["min_workers"] == 0 < node["max_workers"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True


def test_pods_have_shared_memory_and_those_with_gpus_may_run_where_gpus_are() -> None:
    for _, spec in ray_cluster_specs():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            limits = container["resources"]["limits"]
            assert container["resources"]["requests"] == limits
            (shared,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm"]
            assert shared["medium"] == "Memory"
            assert 0 < int(shared["sizeLimit"].removesuffix("Gi")) < int(limits["memory"].removesuffix("Gi"))
            assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
            tolerated = {each["key"] for each in pod.get("tolerations", [])}
            assert ("nvidia.com/gpu" in tolerated) == ("nvidia.com/gpu" in limits)


def test_pods_for_remote_direct_memory_access_ask_for_its_cards_and_may_pin_memory() -> None:
    _, spec = next(ray_cluster_specs())
    (group,) = [group for group in spec["workerGroupSpecs"] if group["groupName"] == "gpu-train-rdma"]
    (container,) = group["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert limits["vpc.amazonaws.com/efa"] == "32"
    assert limits["hugepages-2Mi"] == "5120Mi"
    assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]


def test_the_image_for_gpus_pins_every_requirement_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {}
    for line in (ROOT / "constraints-gpu.txt").read_text().splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (version,) = requirement.specifier
            assert version.operator == "=="
            pinned[canonicalize_name(requirement.name)] = version.version
    extras = project["optional-dependencies"]
    (installed,) = re.findall(
        r'gpu\) pip install --constraint constraints-gpu.txt "\.\[(.+)\]"', (CLUSTER / "Dockerfile").read_text()
    )
    asked = [*project["dependencies"], f"alphafuse[{installed}]"]
    checked = set()
    while asked:
        requirement = Requirement(asked.pop())
        if requirement.name == "alphafuse":
            asked += [text for extra in requirement.extras for text in extras[extra]]
        else:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
            checked.add(requirement.name)
    assert {"vllm", "ray", "obstore", "usearch", "optuna"} <= checked
    assert pinned["nvidia-cuda-runtime"].startswith("13.")


def test_the_job_of_the_manifest_is_a_run_of_a_configuration_that_holds() -> None:
    config_map, job = documents("rayjob.yaml")
    assert job["spec"]["entrypoint"] == "alphafuse run /etc/alphafuse/config.yaml"
    config = parse_config(yaml.safe_load(config_map["data"]["config.yaml"]))
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    for name, group in config.ray.node_groups.items():
        (worker,) = [each for each in groups if each["groupName"] == name]
        assert group.max_nodes == worker["maxReplicas"]
        limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group.cpus == int(limits["cpu"])
    assert {
        config.data.resources.pool,
        config.embed.resources.pool,
        config.decompose.resources.pool,
        config.train.resources.pool,
    } <= set(config.ray.node_groups)


def test_the_service_of_the_manifest_is_one_that_fits_its_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    (service,) = documents("rayservice.yaml")
    deployed = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = deployed.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    arguments = {name: value for name, value in application.args.items() if name != "registry"}
    settings = ServeConfig.model_validate(arguments)
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert group["replicas"] == settings.replicas
    assert settings.cpus < int(container["resources"]["limits"]["cpu"])  # the proxy needs some, too
    monkeypatch.delenv("ALPHAFUSE_SERVE_TOKEN", raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(ClusterError, match="put one into ALPHAFUSE_SERVE_TOKEN"):
        build(application.args)
    monkeypatch.setenv(container["env"][0]["name"], "secret")
    assert build(application.args) is not None


def test_what_a_cluster_may_grow_to_is_read_from_what_it_is_launched_from() -> None:
    from_launcher = read_node_groups(LAUNCHER_FILES[0])
    from_kuberay = read_node_groups(KUBERAY / "raycluster.yaml")
    assert from_kuberay == from_launcher | {"gpu-train-rdma": read_node_groups(EFA)["gpu-train-rdma"]}
    assert from_launcher["gpu-train"] == NodeGroupConfig(max_nodes=4, cpus=48, gpus=4)
    assert set(from_launcher) == {"cpu", "gpu-embed", "gpu-train"}
    assert set(read_node_groups(KUBERAY / "rayjob.yaml")) == {"cpu"}
    with pytest.raises(ConfigError, match="names no machines that a cluster may add"):
        read_node_groups(KUBERAY / "networkpolicy.yaml")
    with pytest.raises(ConfigError, match="cannot read the launch file"):
        read_node_groups(KUBERAY / "missing.yaml")


def test_versions_in_the_files_are_those_of_the_project() -> None:
    wanted = re.search(r"^ray==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert wanted is not None
    for _, spec in ray_cluster_specs():
        assert spec["rayVersion"] == wanted[1]


def test_the_dockerfile_passes_hadolint_and_copies_what_the_package_is_made_of() -> None:
    dockerfile = CLUSTER / "Dockerfile"
    done = subprocess.run([TOOLS / "hadolint", dockerfile], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    copied = set(re.findall(r"^COPY (.+) \S+$", dockerfile.read_text(), re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    assert {
        "alphafuse",
        "cluster",
        "jobs",
        "monitoring",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "constraints.txt",
        "constraints-gpu.txt",
    } == names
    assert all((ROOT / name).exists() for name in names)
    allowed = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    assert names == allowed


def test_the_images_programs_are_found_in_login_shells() -> None:
    """Debian's /etc/profile, which `bash --login` reads, sets a PATH without the image's, then reads /etc/profile.d."""
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    (written,) = re.findall(r"(echo .+) > /etc/profile\.d/\w+\.sh$", dockerfile, re.MULTILINE)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/bash", "-c", f'eval "$({written})"; echo $PATH'], env=environment, capture_output=True, text=True
    )
    (installed,) = re.findall(r"^RUN python -m venv (\S+)$", dockerfile, re.MULTILINE)
    assert done.stdout.split(":")[0] == f"{installed}/bin"


def test_the_slurm_script_passes_shellcheck() -> None:
    script = CLUSTER / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run([TOOLS / "shellcheck", "--severity=style", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "file",
    [*LAUNCHER_FILES, *sorted(KUBERAY.iterdir()), CLUSTER / "Dockerfile", CLUSTER / "slurm.sh"],
    ids=lambda f: f.name,
)
def test_no_file_holds_a_token_or_a_password(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"[0-9a-f]{32}", text)
    assert not re.search(r"(?i)(password|secret_access_key|access_key_id|auth_token)\s*[:=]\s*[\"']?\w", text)
