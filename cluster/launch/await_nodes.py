"""Waits for the nodes of a cluster, in launch scripts: `python -m cluster.launch.await_nodes HOST:PORT NODES`."""

from __future__ import annotations

import logging
import sys
import time

import ray

SECONDS = 600.0


def main() -> None:
    address, nodes = sys.argv[1], int(sys.argv[2])
    deadline = time.monotonic() + SECONDS
    while (there := _count(address)) < nodes:
        if time.monotonic() > deadline:
            sys.exit(f"{there} of {nodes} nodes of the cluster at {address} have joined after {SECONDS:.0f} s")
        time.sleep(1)


def _count(address: str) -> int:
    """Number of nodes that are alive; 0 if the cluster does not answer."""
    try:
        if not ray.is_initialized():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        return sum(node["Alive"] for node in ray.nodes())
    except ConnectionError:
        return 0


if __name__ == "__main__":
    main()
