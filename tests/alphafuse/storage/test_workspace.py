"""Borrowed artefacts: where they may lie, and that nothing is written through them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from alphafuse.errors import WorkspaceError
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"catalog": "../sha',
        b"\xff\xfe",
        b"[1]",
        b'{"catalog": 7}',
        b'{"catalog": "/victim"}',
        b'{"catalog": "s3://victim/run"}',
        b'{"catalog": "../../victim"}',
        b'{"catalog": "../shared/../../victim"}',
        b'{"catalog": "victim"}',
        b'{"catalog": ".."}',
        b'{"catalog": "../"}',
        b'{"../victim": "../shared"}',
    ],
)
def test_a_damaged_or_hostile_file_is_an_error_until_it_is_written_again(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "all" / "run"
    folder.mkdir(parents=True)
    (folder / "borrowed.json").write_bytes(content)
    workspace = Workspace(str(folder))
    for ask in (lambda: workspace.artifact("catalog"), lambda: workspace.borrows("model")):
        with pytest.raises(WorkspaceError, match=r"borrowed\.json cannot be used: .*compare GRID"):
            ask()
    workspace.borrow({"catalog": "../shared/one"})
    assert Workspace(str(folder)).artifact("catalog").folder.uri == f"{tmp_path}/all/shared/one/catalog"


def test_only_workspaces_beside_this_one_are_borrowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the plain name"):
        Workspace(str(tmp_path / "run")).borrow({"catalog": "../../victim"})
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_through_a_borrowed_artefact(tmp_path: Path) -> None:
    shared, run = Workspace(str(tmp_path / "shared")), Workspace(str(tmp_path / "run"))
    table, wanted = pa.table({"x": [1]}), fingerprint({})
    shared.artifact("catalog").write_table("part-0.parquet", table, wanted)
    shared.artifact("catalog").commit({})
    run.borrow({"catalog": "../shared"})
    artifact = run.artifact("catalog")
    before = {path: path.read_bytes() for path in (tmp_path / "shared").rglob("*") if path.is_file()}

    def write_part_by_part() -> None:
        with artifact.writing_table("x.parquet", table.schema, wanted):
            pass

    for write in (
        lambda: artifact.write_table("x.parquet", table, wanted),
        lambda: artifact.write_file("x", b"", wanted),
        write_part_by_part,
        lambda: artifact.commit({}),
        artifact.uncommit,
        artifact.clear,
        artifact.inner("vectors").clear,
    ):
        with pytest.raises(WorkspaceError, match=r"run borrows 'catalog' from .*shared/catalog.*not made again from"):
            write()
    assert before == {path: path.read_bytes() for path in (tmp_path / "shared").rglob("*") if path.is_file()}
