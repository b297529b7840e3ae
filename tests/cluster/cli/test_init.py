"""`alphafuse init`: what it writes is valid and reads the files as they are; it never overwrites, and asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from alphafuse.config import load_config
from cluster.cli.main import app

runner = CliRunner()
ITEMS = "".join(f"{number};Film {number};Drama\n" for number in range(300))
LOG = "".join(f"u{row % 5},{row},{row}\n" for row in range(30))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a catalog that is separated by semicolons, and a log."""
    (tmp_path / "films.csv").write_text("film_id;title;genre\n" + ITEMS, encoding="cp1252")
    (tmp_path / "views.csv").write_text("viewer,film_id,time\n" + LOG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _init(*arguments: str) -> Result:
    return runner.invoke(app, ["init", *arguments])


def test_a_draft_is_valid_and_says_what_was_guessed(shop: Path) -> None:
    done = _init("films.csv", "views.csv")
    assert done.exit_code == 0, done.output
    assert "data.catalog.separator: ';' (it stands in each of the first lines)" in done.output
    assert "data.interactions.user_id: 'viewer' (the only other column" in done.output
    config = load_config(shop / "config.yaml")
    assert (config.workspace, config.data.folder) == ("runs/config", str(shop))
    catalog, log = config.data.catalog, config.data.interactions
    assert (catalog.item_id, catalog.text, catalog.title) == ("film_id", "{title}. {genre}", "title")
    assert (log.user_id, log.item_id, log.timestamp) == ("viewer", "film_id", "time")
    assert runner.invoke(app, ["config", "validate", "config.yaml"]).exit_code == 0


def test_an_existing_file_is_never_overwritten(shop: Path) -> None:
    (shop / "mine.yaml").write_text("precious")
    done = _init("films.csv", "views.csv", "-o", "mine.yaml")
    assert done.exit_code == 1
    assert "mine.yaml exists already" in done.stderr
    assert (shop / "mine.yaml").read_text() == "precious"


def test_choices_overrule_guesses(shop: Path) -> None:
    table = {"user_id": ["a", "a"], "session_id": ["s", "t"], "film_id": ["1", "2"], "time": [1, 2]}
    pq.write_table(pa.table(table), shop / "views.parquet")
    told = _init("films.csv", "views.parquet")
    assert "user_id: 'user_id' (by its name); or 'session_id'? Choose by --user-id" in told.output
    chosen = ["--user-id", "session_id", "--text", "{genre}", "-o", "other.yaml"]
    assert _init("films.csv", "views.parquet", *chosen).exit_code == 0
    config = load_config(shop / "other.yaml")
    assert (config.data.interactions.user_id, config.data.catalog.text) == ("session_id", "{genre}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "views.csv"], "ITEMS: there is no file or folder"),
        (["films.csv", "films.csv"], "no column is seen to name the users; choose it by --user-id"),
        (["films.csv", "views.csv", "--title", "name"], "has no column 'name'"),
        (["films.csv", "views.csv", "--text", "{plot}"], "has no column 'plot'"),
        (["films.csv", "views.csv", "--timestamp", "viewer"], "column 'viewer' holds no times"),
    ],
)
def test_what_cannot_be_drafted_writes_nothing(shop: Path, arguments: list[str], message: str) -> None:
    done = _init(*arguments)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (shop / "config.yaml").exists()


def test_hostile_names_of_columns_stay_values(shop: Path) -> None:
    name = 'ti"tle\u001bc\n# x é日'
    table: dict[str, list[Any]] = {"item_id": ["1", "2"], name: ["A film", "A book"]}
    pq.write_table(pa.table(table), shop / "items.parquet")
    done = _init("items.parquet", "views.csv", "--title", name)
    assert done.exit_code == 0, done.output
    assert "\u001b" not in done.output
    assert load_config(shop / "config.yaml").data.catalog.title == name


def test_few_items_get_a_small_model(shop: Path) -> None:
    (shop / "few.csv").write_text("film_id,title\n" + "".join(f"{number},Film\n" for number in range(20)))
    assert _init("few.csv", "views.csv").exit_code == 0
    config = load_config(shop / "config.yaml")
    assert (config.model.hidden_dim, config.decompose.null_dim) == (8, 4)


def test_comments_say_why(shop: Path) -> None:
    _init("films.csv", "views.csv")
    text = (shop / "config.yaml").read_text()
    assert 'separator: ";"  # it stands in each of the first lines' in text
    assert yaml.safe_load(text)["data"]["split"] == {"kind": "leave_one_out"}


def test_nothing_heavy_is_imported(shop: Path) -> None:
    code = """
import sys
from cluster.cli.main import app
app(["init", "films.csv", "views.csv"], standalone_mode=False)
print({"torch", "ray", "deepspeed", "vllm", "transformers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_hostile_names_of_files_reach_no_terminal_raw(shop: Path) -> None:
    output = "\x1b[31mred\u202e.yaml"
    done = _init("films.csv", "views.csv", "-o", output)
    assert done.exit_code == 0, done.output
    assert (shop / output).exists()
    assert not set("\x1b\u202e") & set(done.output)
    assert r"\x1b[31mred\u202e.yaml" in done.output
