"""Messages of the prepare stage on inputs that are read, and are perhaps not what they seem to be."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from support.workspaces.prepare_cases import configuration, stored_sequences, write_items, write_log
from support.workspaces.prepare_here import prepare_here

from alphafuse.config import Config
from alphafuse.errors import DataError
from alphafuse.events import Event, StageWarning, ignore
from alphafuse.storage.workspace import Workspace

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def _write(path: Path, *rows: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _prepare(folder: Path, patch: pytest.MonkeyPatch, **data: Any) -> tuple[Workspace, str]:
    """Prepare items.csv and the folder log; returns the workspace and all warnings."""
    sources = {"catalog": {"path": "items.csv"}, "interactions": {"path": "log"}, **data}
    config, events = configuration(folder, **sources), list[Event]()
    prepare_here(config, events.append, patch)
    said = "\n".join(event.message for event in events if isinstance(event, StageWarning))
    return Workspace(config.workspace), said


def test_ids_that_the_catalog_has_in_another_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "items.csv", "item_id,text", "1,a", "2,b", f"{COMPOSED},c", f"{DECOMPOSED}2,d")
    rows = [f"u,{item},{time}" for time, item in enumerate(["1", "2", "1.0", DECOMPOSED, "x"])]
    _write(tmp_path / "log/0.csv", "user_id,item_id,timestamp", *rows, f"{DECOMPOSED},1,9", f"{DECOMPOSED},2,9")
    workspace, said = _prepare(tmp_path, monkeypatch)
    assert stored_sequences(workspace)["u"]["items"] == ["1", "2"]
    assert "3 interactions are with items that are not in the catalog" in said
    assert "it has '1.0' without '.0', and " in said
    assert f"{DECOMPOSED!r} with composed accents (Unicode NFC): write the ids of catalog and log alike" in said
    assert "2 interactions have user ids that are written with decomposed accents" in said
    assert "1 item ids are written with decomposed accents (Unicode NFD)" in said


def test_seconds_beside_milliseconds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "items.csv", "item_id,text", "1,a", "2,b")
    _write(tmp_path / "log/0.csv", "user_id,item_id,timestamp", "u,1,1569888000", "u,2,1569888001")
    _write(tmp_path / "log/1.csv", "user_id,item_id,timestamp", "u,1,1569888002000")
    message = r"seconds \(1569888000 in .*log/0\.csv\) and milliseconds \(1569888002000 in .*log/1\.csv\)"
    with pytest.raises(DataError, match=message):
        _prepare(tmp_path, monkeypatch)


def test_files_that_are_left_out_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "items.csv", "item_id,text", "1,a", "2,b")
    for name in ("0.csv", "1.csv.zip", "part-2"):
        _write(tmp_path / "log" / name, "user_id,item_id,timestamp", "u,1,1", "u,2,2")
    _, said = _prepare(tmp_path, monkeypatch)
    assert "2 files or folders are left out" in said
    assert "'1.csv.zip', 'part-2'" in said


def test_a_setting_of_the_reader_is_part_of_what_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "items.csv", "item_id;text", "1;a", "2;b")
    _write(tmp_path / "log/0.csv", "user_id,item_id,timestamp", "u,1,1", "u,2,2")
    workspace, _ = _prepare(tmp_path, monkeypatch, catalog={"path": "items.csv", "separator": ";"})
    catalog = workspace.artifact("catalog").require()
    assert catalog.inputs["catalog"] == {
        "split": None,
        "separator": ";",
        "item_id": "item_id",
        "text": "{text}",
        "title": None,
    }


def test_an_update_wants_the_increments_that_its_parent_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(config: Config) -> None:
        with monkeypatch.context() as patch:
            prepare_here(config, ignore, patch)

    write_items(tmp_path / "items.parquet", [("a", "text"), ("b", "text")])
    (tmp_path / "log").mkdir()
    for day in (1, 2, 10):
        write_log(tmp_path / "log" / f"day-{day}.parquet", [(f"user {day}", "a", day), (f"user {day}", "b", day + 0.5)])
    interactions = {"path": "log/*.parquet", "increments": True}
    (tmp_path / "log" / "day-10.parquet").rename(tmp_path / "later.parquet")
    config = configuration(tmp_path, interactions=interactions)
    prepare(config)

    (tmp_path / "later.parquet").rename(tmp_path / "log" / "day-10.parquet")
    parent = config.update.model_copy(update={"parent": config.workspace})
    update = config.model_copy(update={"workspace": str(tmp_path / "next"), "update": parent})
    (tmp_path / "log" / "day-1.parquet").rename(tmp_path / "lost.parquet")
    with pytest.raises(DataError, match=r"'day-1\.parquet' is missing"):
        prepare(update)
    assert not (tmp_path / "next").exists()
    (tmp_path / "lost.parquet").rename(tmp_path / "log" / "day-1.parquet")
    prepare(update)
    assert len(stored_sequences(Workspace(update.workspace))) == 3
    shutil.rmtree(config.workspace)
    prepare(update)  # finished: the parent may be gone
