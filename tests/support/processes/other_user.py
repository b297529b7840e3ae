"""Runs code as another user of this machine, `nobody`. Only root can start it."""

from __future__ import annotations

import os
import pwd
import subprocess

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run code as another user")


def as_nobody(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code as the user `nobody`, in the folder /."""
    nobody = pwd.getpwnam("nobody")
    return subprocess.run(
        ["/usr/bin/env", "python3", "-c", code, *map(str, arguments)],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.defpath, "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
    )
