"""The environment of HAProxy: files of this user alone, ports of the loopback address; none where it is not wanted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jobs.serving.load_balancer import VARIABLE, load_balancer

CONFIGURATION = """frontend prometheus
    bind :{METRICS_PORT}
frontend http_frontend
    bind *:8000
frontend others
    bind :{METRICS_PORT}0
listen stats
  bind *:{STATS_PORT}
"""


def _settings() -> dict[str, str]:
    """The variables of Ray Serve, by the end of their names."""
    prefix = "RAY_SERVE_"
    return {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}


@pytest.fixture(autouse=True)
def not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_all_files_lie_in_a_folder_of_this_user_which_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    before = _settings()
    with load_balancer("127.0.0.1"):
        found = _settings()
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        paths = [value for name, value in found.items() if name not in before and "/" in value]
        assert len(paths) == 7
        assert all(path == str(folder) or path.startswith(f"{folder}/") for path in paths)
        ports = [value for name, value in found.items() if name.endswith("_PORT")]
        assert len({*ports}) == len(ports) == 4
    assert _settings() == before
    assert not any(tmp_path.iterdir())


def test_metrics_and_statistics_are_shown_on_the_loopback_address_alone(tmp_path: Path) -> None:
    with load_balancer("0.0.0.0"):
        settings = _settings()
        ports = {name: settings[f"HAPROXY_{name}"] for name in ("METRICS_PORT", "STATS_PORT")}
        file = tmp_path / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(**ports))
        version = subprocess.run(
            [settings["HAPROXY_BINARY_PATH"], "-v", "-f", str(file)], capture_output=True, text=True, check=True
        )
    assert version.stdout.startswith("HAProxy version")
    addresses = [line.split()[1] for line in file.read_text().splitlines() if "bind" in line]
    metrics, statistics = ports.values()
    assert addresses == [f"127.0.0.1:{metrics}", "*:8000", f":{metrics}0", f"127.0.0.1:{statistics}"]


@pytest.mark.parametrize(("host", "chosen"), [("::1", None), ("127.0.0.1", "0")])
def test_ray_serves_own_proxy_stays(host: str, chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an address that HAProxy cannot look for, and where the environment says so."""
    if chosen is not None:
        monkeypatch.setenv(VARIABLE, chosen)
    before = _settings()
    with load_balancer(host):
        assert _settings() == before
