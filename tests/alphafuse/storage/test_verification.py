"""Damage in an artefact is named and repaired, and nothing else is touched."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pytest

from alphafuse.errors import WorkspaceError
from alphafuse.storage.manifest import fingerprint, to_json
from alphafuse.storage.verification import Examination, examine, origins
from alphafuse.storage.workspace import Workspace

INPUTS = {"model": "a"}


def _commit(workspace: Workspace, name: str = "catalog", inputs: dict[str, object] = INPUTS) -> None:
    artifact = workspace.artifact(name)
    for number in range(3):
        table = pa.table({"x": [3 * number, 3 * number + 1, 3 * number + 2]})
        artifact.write_table(f"part-{number}.parquet", table, fingerprint(inputs), first_row=3 * number)
    artifact.commit(inputs, rows=9)


@pytest.fixture(params=["", "memory://"])
def workspace(tmp_path: Path, request: pytest.FixtureRequest) -> Workspace:
    workspace = Workspace(f"{request.param}{tmp_path}/run")
    _commit(workspace)
    return workspace


def _repair(workspace: Workspace) -> Examination:
    found = examine(workspace.artifact("catalog"))
    found.repair()
    return found


def _contents(workspace: Workspace) -> dict[str, bytes]:
    folder = workspace.artifact("catalog").folder
    return {name: folder.read_bytes(name) for name in folder.names()}


def test_of_a_whole_artefact_nothing_is_found(workspace: Workspace) -> None:
    before = _contents(workspace)
    found = _repair(workspace)
    assert (found.findings, found.whole) == ([], 3)
    assert _contents(workspace) == before


def test_a_damaged_file_goes_with_its_record_and_the_manifests(workspace: Workspace) -> None:
    artifact, before = workspace.artifact("catalog"), _contents(workspace)
    content = bytearray(before["part-1.parquet"])
    content[len(content) // 2] ^= 1
    artifact.folder.write_bytes("part-1.parquet", bytes(content))
    found = _repair(workspace)
    assert [(finding.file, finding.needs) for finding in found.findings] == [("catalog/part-1.parquet", "repair")]
    assert not artifact.is_committed(INPUTS)
    assert set(artifact.committed_files(fingerprint(INPUTS))) == {"part-0.parquet", "part-2.parquet"}
    assert _contents(workspace).items() < before.items()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"[" * 100_000, b"null", b"{}", None])
@pytest.mark.parametrize("name", ["manifest.json", "manifest.copy.json", "part-1.parquet.record.json"])
def test_manifests_and_records_restore_each_other(workspace: Workspace, name: str, content: bytes | None) -> None:
    folder, before = workspace.artifact("catalog").folder, _contents(workspace)
    if content is None:
        folder.delete_files([name])
    else:
        folder.write_bytes(name, content)
    if name == "manifest.json":
        with pytest.raises(WorkspaceError, match=r"catalog/manifest\.json cannot be used.*verify CONFIG --repair"):
            workspace.artifact("catalog").is_committed(INPUTS)
    else:
        assert workspace.artifact("catalog").is_committed(INPUTS)
    assert [finding.file for finding in _repair(workspace).findings] == [f"catalog/{name}"]
    assert _contents(workspace) == before


def test_without_a_manifest_the_files_remain_for_the_stage(workspace: Workspace) -> None:
    artifact = workspace.artifact("catalog")
    for name in ("manifest.json", "manifest.copy.json"):
        artifact.folder.write_bytes(name, b"{")
    artifact.folder.write_bytes("part-2.parquet.record.json", b"{")
    assert len(_repair(workspace).findings) == 3
    assert set(artifact.committed_files(fingerprint(INPUTS))) == {"part-0.parquet", "part-1.parquet"}
    (left,) = examine(artifact).findings
    assert (left.file, left.needs) == ("catalog/manifest.json", "nothing")


def test_a_flipped_bit_of_a_manifest_or_a_record_is_seen(tmp_path: Path) -> None:
    """Except where the content means the same."""
    workspace = Workspace(str(tmp_path))
    _commit(workspace)
    whole = examine(workspace.artifact("catalog")).manifest
    for name in ("manifest.json", "part-1.parquet.record.json"):
        path = tmp_path / "catalog" / name
        content = path.read_bytes()
        for bit in range(0, 8 * len(content), 19):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(flipped))
            found = examine(workspace.artifact("catalog"))
            assert found.manifest == whole
            try:
                alike = json.loads(flipped) == json.loads(content)
            except ValueError:
                alike = False
            assert alike or [finding.file for finding in found.findings] == [f"catalog/{name}"]
        path.write_bytes(content)


def test_manifest_of_another_run_gives_way_to_the_copy_that_fits(tmp_path: Path) -> None:
    one, two = Workspace(str(tmp_path / "one")), Workspace(str(tmp_path / "two"))
    _commit(one)
    _commit(two, inputs={"model": "b"})
    before = _contents(one)
    one.artifact("catalog").folder.write_bytes("manifest.json", _contents(two)["manifest.json"])
    assert [finding.file for finding in _repair(one).findings] == ["catalog/manifest.json"]
    assert _contents(one) == before


def test_stray_records_are_deleted_and_other_files_left_alone(workspace: Workspace) -> None:
    folder, before = workspace.artifact("catalog").folder, _contents(workspace)
    ours = ["part-9.parquet.record.json", ".part-9.parquet.0123.tmp"]
    for name in (*ours, "notes.txt"):
        folder.write_bytes(name, before["part-1.parquet.record.json"])
    assert workspace.artifact("catalog").is_committed(INPUTS)
    found = _repair(workspace)
    assert {finding.file: finding.needs for finding in found.findings} == {
        **{f"catalog/{name}": "repair" for name in ours},
        "catalog/notes.txt": "nothing",
    }
    assert _contents(workspace).keys() == {*before, "notes.txt"}


@pytest.mark.parametrize("name", ["../../victim/file", "/victim", "a/b", "..", "a\\b", "", "manifest.json", "a\x1b[2J"])
def test_paths_in_manifests_and_records_lead_nowhere(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim" / "file"
    victim.parent.mkdir()
    victim.write_text("mine")
    workspace = Workspace(str(tmp_path / "run"))
    _commit(workspace)
    artifact, before = workspace.artifact("catalog"), _contents(workspace)
    manifest = artifact.require()
    wrong = dataclasses.replace(manifest.files[1], name=name)
    evil = dataclasses.replace(manifest, files=[manifest.files[0], wrong, manifest.files[2]])
    for file in ("manifest.json", "manifest.copy.json"):
        artifact.folder.write_bytes(file, to_json(evil))
    artifact.folder.write_bytes("part-1.parquet.record.json", to_json(wrong))
    with pytest.raises(WorkspaceError, match=r"manifest\.json cannot be used: files\.1\.name"):
        artifact.require()
    assert len(_repair(workspace).findings) == 3
    assert victim.read_text() == "mine"
    assert _contents(workspace).items() < before.items()
    assert set(artifact.committed_files(fingerprint(INPUTS))) == {"part-0.parquet", "part-2.parquet"}


def test_files_of_the_format_before_are_read_and_verified(tmp_path: Path) -> None:
    """They have no seals, copies or hashes of footers."""
    workspace = Workspace(str(tmp_path))
    _commit(workspace)
    folder = tmp_path / "catalog"
    manifest = json.loads((folder / "manifest.json").read_text()) | {"format_version": 1}
    for fields in (manifest, *manifest["files"]):
        fields.pop("seal", None)
        fields.pop("footer", None)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "manifest.copy.json").unlink()
    for fields in manifest["files"]:
        (folder / f"{fields['name']}.record.json").write_text(json.dumps(fields))
    artifact = workspace.artifact("catalog")
    assert examine(artifact).findings == []
    assert artifact.read_table(artifact.file("part-1.parquet"))["x"].to_pylist() == [3, 4, 5]
    (folder / "part-1.parquet").write_bytes(b"")
    assert [finding.file for finding in _repair(workspace).findings] == ["catalog/part-1.parquet"]
    assert not artifact.is_committed(INPUTS)


def test_unfinished_work_is_examined_too(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    vectors = workspace.artifact("embeddings").inner("vectors")
    for number in range(3):
        vectors.write_table(f"{number}.parquet", pa.table({"x": [number]}), "f")
    (tmp_path / "embeddings" / "vectors" / "0.parquet").write_bytes(b"")
    (tmp_path / "embeddings" / "vectors" / "1.parquet.record.json").write_bytes(b"")
    found = examine(workspace.artifact("embeddings"))
    named = ["embeddings/vectors/0.parquet", "embeddings/vectors/1.parquet.record.json"]
    assert sorted(finding.file for finding in found.findings) == named
    found.repair()
    assert set(vectors.committed_files("f")) == {"2.parquet"}


def test_what_an_artefact_was_made_from_is_compared(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    _commit(workspace)
    _commit(workspace, "sequences", {"catalog": fingerprint(INPUTS)})
    manifests = {name: workspace.artifact(name).manifest() for name in ("catalog", "sequences")}
    workspace.require_origins("sequences")
    assert origins(manifests) == []
    (missing,) = origins({**manifests, "catalog": None})
    assert (missing.file, missing.needs) == ("catalog", "run")
    workspace.artifact("catalog").clear()
    _commit(workspace, "catalog", {"model": "b"})
    (other,) = origins({**manifests, "catalog": workspace.artifact("catalog").manifest()})
    assert (other.file, other.needs) == ("sequences", "run")
    with pytest.raises(WorkspaceError, match=r"sequences was made from other inputs .*\(another catalog\)"):
        workspace.require_origins("sequences")


def test_borrowed_artefacts_are_repaired_by_their_owner_alone(tmp_path: Path) -> None:
    shared, run = Workspace(str(tmp_path / "shared")), Workspace(str(tmp_path / "run"))
    _commit(shared)
    run.borrow({"catalog": "../shared"})
    examine(run.artifact("catalog")).repair()
    (tmp_path / "shared" / "catalog" / "part-0.parquet").unlink()
    before = _contents(shared)
    found = examine(run.artifact("catalog"))
    assert [finding.file for finding in found.findings] == ["catalog/part-0.parquet"]
    with pytest.raises(WorkspaceError, match=rf"--set workspace={tmp_path}/shared --repair.*--until prepare"):
        found.repair()
    assert _contents(shared) == before
    assert [finding.file for finding in _repair(shared).findings] == ["catalog/part-0.parquet"]
