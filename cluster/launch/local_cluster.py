"""Starts and stops a Ray cluster on this machine: a head without CPUs, and some workers.

Every node is a process `ray start --block` in a session of its own. So it outlives the command that started it, ends
with all processes that it started, and can be killed alone. A file in the user's state folder lists the nodes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray.util
import requests

from alphafuse.errors import ClusterError
from alphafuse.storage.filesystem.private_folder import make_private, state_folder
from jobs.execution.embedded_cluster import private_session_folder
from jobs.execution.free_ports import free_ports
from jobs.execution.token_file import MODE_VARIABLE, ensure_token, headers

DASHBOARD_PORT = 8265
START_SECONDS = 300.0
"""Longest time that a node may take to start; a busy machine takes minutes."""
START_ATTEMPTS = 4
STOP_SECONDS = 60.0
"""Time between SIGTERM and SIGKILL; Ray itself gives running work 30 seconds."""
OBJECT_STORE_SHARE = 0.3
MIN_OBJECT_STORE = 100 << 20


@dataclass(frozen=True)
class Node:
    """A process `ray start --block`. Its start time distinguishes it from later processes with the same id."""

    name: str
    pid: int
    created: float

    def process(self) -> psutil.Process | None:
        """The process; None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            alive = process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


@dataclass(frozen=True)
class LocalCluster:
    """A cluster that `up` started."""

    dashboard: str
    """URL of the Jobs API and the dashboard."""
    address: str
    """Address for `ray.address`."""
    temp_folder: str
    """Folder of Ray's sessions, logs and sockets, which only its owner can enter."""
    nodes: tuple[Node, ...]


def up(workers: int, cpus_per_node: int) -> LocalCluster:
    """Start a head and `workers` nodes of `cpus_per_node` logical CPUs each, and wait until all of them are ready.

    Raises:
        ClusterError: a cluster runs already, or a node does not start.
    """
    existing = running()
    if existing is not None:
        raise ClusterError(f"a local cluster runs already, {existing.dashboard}; stop it with `alphafuse local down`")
    down()  # remains of a cluster whose head was lost
    make_private(_state_folder())
    temp_folder = private_session_folder()
    token = ensure_token()
    port, client_port, other_port = free_ports(3)
    dashboard_port = DASHBOARD_PORT if _is_free(DASHBOARD_PORT) else other_port
    # Ray replaces a loopback address by this one, and listens on it alone.
    address = f"{ray.util.get_node_ip_address()}:{port}"
    cluster = LocalCluster(f"http://127.0.0.1:{dashboard_port}", address, temp_folder, ())
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard_port}", "--dashboard-host=127.0.0.1"]
    # Ray opens the folder that it is given to everybody: the one above it is closed.
    head += ["--num-cpus=0", f"--ray-client-server-port={client_port}", f"--temp-dir={temp_folder}/r"]
    worker = [f"--address={cluster.address}", f"--num-cpus={cpus_per_node}"]
    store = max(MIN_OBJECT_STORE, int(psutil.virtual_memory().available * OBJECT_STORE_SHARE / (workers + 1)))
    try:
        cluster = _with_node(cluster, "head", head, store, lambda: _answers(cluster.dashboard, token))
        for number in range(1, workers + 1):
            ready = functools.partial(_are_alive, cluster.dashboard, token, number + 1)
            cluster = _with_node(cluster, f"worker-{number}", worker, store, ready)
    except BaseException:
        _stop(_started() or cluster)
        raise
    return cluster


def running() -> LocalCluster | None:
    """The cluster that `up` started; None if there is none, or its head has ended."""
    cluster = _started()
    return None if cluster is None or cluster.nodes[0].process() is None else cluster


def down() -> LocalCluster | None:
    """Stop the cluster and everything that runs on it; returns the cluster, or None if there was none."""
    cluster = _started()
    if cluster is not None:
        _stop(cluster)
    return cluster


def _started() -> LocalCluster | None:
    """The cluster that was started and not stopped since, even if its processes have ended."""
    try:
        state = json.loads(_state_file().read_text())
    except FileNotFoundError:
        return None
    return LocalCluster(**{**state, "nodes": tuple(Node(**node) for node in state["nodes"])})


def _with_node(
    cluster: LocalCluster, name: str, arguments: Sequence[str], object_store: int, ready: Callable[[], bool]
) -> LocalCluster:
    """Start one more node and wait until it is ready. A node that ends while it starts is started again: Ray gives a
    node half a minute, which is not enough on a busy machine.

    Raises:
        ClusterError: the node ended `START_ATTEMPTS` times, or took longer than `START_SECONDS`.
    """
    for _ in range(START_ATTEMPTS):
        with_node = _start(cluster, name, [*arguments, "--num-gpus=0", f"--object-store-memory={object_store}"])
        if _wait(with_node, ready):
            return with_node
    log = _state_folder() / f"{name}.log"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise ClusterError(f"the node {name} of the local cluster ended {START_ATTEMPTS} times ({log}):\n{last}")


def _start(cluster: LocalCluster, name: str, arguments: Sequence[str]) -> LocalCluster:
    """Start a node and record it in the state file, so that `down` finds it even if this process dies."""
    # 0 takes a free port; by default all nodes of a machine would use the same one.
    ports = ["--dashboard-agent-listen-port=0", "--disable-usage-stats"]
    with open(_state_folder() / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments, *ports],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(),
        )
    node = Node(name, process.pid, psutil.Process(process.pid).create_time())
    cluster = dataclasses.replace(cluster, nodes=(*cluster.nodes, node))
    _state_file().write_text(json.dumps(dataclasses.asdict(cluster)))
    return cluster


def _wait(cluster: LocalCluster, ready: Callable[[], bool]) -> bool:
    """Wait until the latest node is ready; returns False if it ended instead.

    Raises:
        ClusterError: the node takes longer than `START_SECONDS`.
    """
    node = cluster.nodes[-1]
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if node.process() is None:
            return False
        if time.monotonic() > deadline:
            raise ClusterError(f"the node {node.name} did not start in {START_SECONDS:.0f} s, see {_state_folder()}")
        time.sleep(0.2)
    return True


def _environment() -> dict[str, str]:
    """Environment variables of a node: without the address of another cluster, and with this Python first in the path,
    so that jobs use it."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")}
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    return {**kept, "PATH": path, MODE_VARIABLE: "token"}


def _answers(url: str, token: str) -> bool:
    try:
        return requests.get(f"{url}/api/version", headers=headers(token), timeout=10).ok
    except requests.RequestException:
        return False


def _are_alive(url: str, token: str, wanted: int) -> bool:
    try:
        answer = requests.get(f"{url}/nodes?view=summary", headers=headers(token), timeout=10).json()
        return sum(node["raylet"].get("state") == "ALIVE" for node in answer["data"]["summary"]) >= wanted
    except (requests.RequestException, KeyError):  # KeyError: a starting cluster sends incomplete answers
        return False


def _stop(cluster: LocalCluster) -> None:
    """End all processes of all nodes, workers first; processes that do not end in time are killed."""
    nodes = [process for node in reversed(cluster.nodes) if (process := node.process()) is not None]
    processes = [*nodes, *(child for process in nodes for child in _children(process))]
    for process in nodes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    shutil.rmtree(cluster.temp_folder, ignore_errors=True)
    _state_file().unlink(missing_ok=True)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _state_folder() -> Path:
    return state_folder("local-cluster")


def _state_file() -> Path:
    return _state_folder() / "cluster.json"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
