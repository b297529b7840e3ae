"""Commands that are suggested after a run can be typed as they stand."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from cluster.cli.running import print_next


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
