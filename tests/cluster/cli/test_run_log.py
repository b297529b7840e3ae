"""The output of dependencies goes to the log. Tests use processes of their own, since descriptors are redirected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from alphafuse.storage.filesystem.folder import Folder
from cluster.cli.run_log import redirect_output
with redirect_output(Folder(sys.argv[1])) as output:
    print("chatter", sys.argv[2])
    output.write("ours\\n")
    assert sys.argv[2] != "fails", "a fault"
"""


def _run(folder: str, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, folder, name], capture_output=True, text=True)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_chatter_of_all_commands_is_in_the_workspace(tmp_path: Path, scheme: str) -> None:
    folder = f"{scheme}{tmp_path}/run"
    works, fails = _run(folder, "works"), _run(folder, "fails")
    assert (works.returncode, works.stdout, works.stderr) == (0, "ours\n", "")
    assert "AssertionError: a fault" in fails.stderr
    assert f"unexpected error; the output before it is in {folder}/logs/run.log" in fails.stderr
    assert (tmp_path / "run" / "logs" / "run.log").read_text() == "chatter works\nchatter fails\n"


def test_a_log_that_cannot_be_written_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    done = _run(f"file://{tmp_path}/run", "works")
    assert (done.returncode, done.stdout) == (0, "ours\n")
    assert "run/logs/run.log cannot be written" in done.stderr
    left = Path(done.stderr.split("it stays in ")[1].strip())
    assert left.read_text() == "chatter works\n"
    left.unlink()
    left.parent.rmdir()
