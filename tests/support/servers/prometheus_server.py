"""A real Prometheus (the Debian package) that finds the processes of runs as the shipped configuration says."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from support.processes.waiting import wait_until

from jobs.execution.free_ports import free_ports
from monitoring.metrics.target_server import PATH, make_server

DEADLINE_SECONDS = 120.0
SHIPPED = Path(__file__).parents[3] / "monitoring" / "prometheus"


class Prometheus:
    """The HTTP API of a Prometheus server."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **arguments: str | float) -> Any:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=30) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]

    def targets(self) -> list[dict[str, Any]]:
        return self.get("targets", state="active")["activeTargets"]

    def series(self, expression: str, start: float) -> list[dict[str, Any]]:
        """All series of an expression between `start` and now, with their values."""
        return self.get("query_range", query=expression, start=start, end=time.time(), step=1)["result"]

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition is true; returns its value."""
        try:
            return wait_until(condition, DEADLINE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"still not so: {self.targets()}") from error


@contextmanager
def prometheus(folder: Path, targets: Path) -> Iterator[Prometheus]:
    """Context with a server that has the shipped configuration and rules, except for the address of the list of
    targets, which is served beside it, the scrape interval, and alerting, which is off."""
    settings = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(SHIPPED / "rules" / "*.yml")]
    del settings["alerting"]
    lists = make_server(targets, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{lists.server_port}{PATH}"
    settings["scrape_configs"][0]["http_sd_configs"] = [{"url": url, "refresh_interval": "1s"}]
    folder.mkdir(parents=True, exist_ok=True)
    targets.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    thread = threading.Thread(target=lists.serve_forever)
    thread.start()
    try:
        server = Prometheus(address)

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with suppress(OSError):
                server.targets()
                return True
            return False

        wait_until(answers, DEADLINE_SECONDS)
        yield server
    finally:
        process.kill()
        process.wait()
        lists.shutdown()
        lists.server_close()
        thread.join()
