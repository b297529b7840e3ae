"""The output of dependencies goes to the log. Tests use processes of their own, since descriptors are redirected."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from cluster.cli.running import print_next

SCRIPT = """
import sys
from alphafuse.storage.folder import Folder
from cluster.cli.running import redirect_output
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


def _workspace(folder: Path, items: list[tuple[str, str]]) -> Workspace:
    """A workspace with a catalog of ids and titles, the most popular item first."""
    workspace, inputs = Workspace(str(folder)), {"made by": "hand"}
    index = pa.array(range(len(items)), pa.int64())
    ids, titles = zip(*items, strict=True)
    catalog = pa.table({"item_index": index, "item_id": ids, "text": titles, "title": titles})
    counts = pa.array(np.arange(len(items), 0, -1), pa.int64())
    for name, file, table in (
        ("catalog", "part-00000.parquet", catalog),
        ("popularity", "popularity.parquet", pa.table({"item_index": index, "count": counts})),
    ):
        artifact = workspace.artifact(name)
        artifact.write_table(file, table, fingerprint(inputs), first_row=0)
        artifact.commit(inputs)
    return workspace


@pytest.mark.parametrize(
    ("items", "history"),
    [
        ([("1", "Heat"), ("2", "heat "), ("3", "Toy Story, The")], "Heat,Toy Story, The"),
        ([("1", "$(touch pwned)"), ("2", "`touch pwned`'; touch pwned")], "$(touch pwned),`touch pwned`'; touch pwned"),
        ([("1", "\x1b[31mred"), ("2", "a\nb"), ("3", "x" * 1000)], "1,2"),
        ([("\x07", "\x1b]0;title\x07"), ("2", ""), ("3", "!!")], "2,!!"),
        ([("1", "Heat"), ("2", "Heat")], "TITLE,TITLE"),
    ],
)
def test_suggestions_are_quoted_and_name_two_popular_items(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], items: list[tuple[str, str]], history: str
) -> None:
    print_next(["a $(touch pwned).yaml", "--set", "data.catalog.text={a} {b}"], _workspace(tmp_path / "run", items))
    recommend, run = capsys.readouterr().out.splitlines()
    assert shlex.split(recommend)[2:] == [
        "recommend", "a $(touch pwned).yaml", "--set", "data.catalog.text={a} {b}", "--history", history
    ]  # fmt: skip
    assert shlex.split(run)[1:3] == ["run", "a $(touch pwned).yaml"]
    for line in (recommend.replace("try", "printf %s", 1), run.replace("  ", "printf %s ", 1)):
        subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
