"""The prepare stage on inputs from public bug reports: right rows, or an error that says what is wrong and what to do.

The inputs lie in ../shared/cases, each with a configuration and a README.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.workspaces.prepare_cases import stored_catalog, stored_sequences
from support.workspaces.prepare_here import prepare_here

from alphafuse.config import load_config
from alphafuse.errors import DataError
from alphafuse.events import Event, StageWarning
from alphafuse.storage.workspace import Workspace

CASES = Path(__file__).parents[4] / "shared" / "cases"

pytestmark = [pytest.mark.shared_data, pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/cases")]

REFUSED = {
    "csv-float-ids": r"does not have, for example, '1\.0', .*it has '1\.0' without '\.0'",
    "csv-unclosed-quote-items": r"items\.csv, line 7: a field begins with a quote",
    "csv-unclosed-quote-log": r"log\.csv, line 6: a field begins with a quote",
    "dat-double-colon": r"movies\.dat .*`format: csv`, with `separator` \(such as \"::\"\), `encoding` .*`columns`",
    "delta-table": "is a table of Delta Lake .*Export the table",
    "duplicate-column-parquet": "has the column 'title' 2 times",
    "float-ids-over-2-53": "column 'user_id' holds ids above 2.53",
    "hf-configs": r"(?s)raw_meta.*Set `name` beside `path`",
    "hf-script": "loaded by a script of their own are not read",
    "hf-two-schemas": r"(?s)column names don't match.*different columns",
    "invalid-utf8-parquet-items": "items.parquet: column 'title' holds bytes that are not UTF-8",
    "invalid-utf8-parquet-log": "log.parquet: column 'user_id' holds bytes that are not UTF-8",
    "jsonl": r"meta\.jsonl\.gz, line 1 is no JSON object .*json\.dumps\(ast\.literal_eval\(line\)\)",
    "latin1-csv": r"items\.csv, line 2, column 'title': .* is not UTF-8\. Set `encoding`",
    "semicolon-csv": r"separated by ';': set `separator: \";\"`",
    "tab-separated-csv": r"separated by a tab: .*name the file \.tsv",
    "temporal-one-day": r"first cut, the time .*2024-01-01 .*are all times equal",
}
READ = {
    "decimal-ids": {"7": ["1", "2", "3", "1", "2"]},
    "file-order-natural": {"u": ["i1", "i5", "i2", "i10", "i11"]},
    "rees46-utc": {"u": ["i0", "i1", "i2"]},
}
"""Items of each user in their order."""
TEXTS = {
    "list-with-null": "A title. Toys, Dolls",
    "nan-in-text": "B ()",
    "tsv-quotes-in-titles": '"Weird Al',
}
"""A text among those of the catalog."""
SETTINGS = {
    "dat-double-colon": [
        *(
            f"data.{source}.{setting}"
            for source in ("catalog", "interactions")
            for setting in ("format=csv", "separator='::'")
        ),
        "data.catalog.columns=[item_id,title,genres]",
        "data.interactions.columns=[user_id,item_id,rating,timestamp]",
    ],
    "hf-configs": ["data.interactions.name=raw_review"],
    "latin1-csv": ["data.catalog.encoding=latin-1"],
    "semicolon-csv": ["data.catalog.separator=;"],
    "tab-separated-csv": [f"data.{source}.separator='\\t'" for source in ("catalog", "interactions")],
}
"""Settings that the messages advise."""


def _prepare(case: str, folder: Path, patch: pytest.MonkeyPatch, overrides: list[str]) -> tuple[Workspace, list[str]]:
    """Run a case in a copy of its folder; returns the workspace and the warnings."""
    shutil.copytree(CASES / case, folder / case, copy_function=shutil.copyfile)
    for path in (folder / case, *(folder / case).rglob("*")):
        path.chmod(0o755)
    patch.chdir(folder / case)
    config, events = load_config(Path("c.yaml"), overrides), list[Event]()
    prepare_here(config, events.append, patch)
    return Workspace(config.workspace), [event.message for event in events if isinstance(event, StageWarning)]


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=REFUSED[case]):
        _prepare(case, tmp_path, monkeypatch, [])


@pytest.mark.parametrize("case", READ)
def test_read(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, _ = _prepare(case, tmp_path, monkeypatch, ["data.split.kind=users"])
    assert {user: row["items"] for user, row in stored_sequences(workspace).items()} == READ[case]


@pytest.mark.parametrize("case", TEXTS)
def test_texts(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, warnings = _prepare(case, tmp_path, monkeypatch, [])
    assert TEXTS[case] in {row["text"] for row in stored_catalog(workspace)}
    assert not [warning for warning in warnings if "text" in warning]


@pytest.mark.parametrize("case", SETTINGS)
def test_advice_that_is_followed_leads_to_rows(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, _ = _prepare(case, tmp_path, monkeypatch, SETTINGS[case])
    assert stored_sequences(workspace)


def test_all_cases_are_known() -> None:
    elsewhere = {"bot-in-test", "huge-id-memory", "precomputed-duplicate-ids", "tmpdir-long"}
    assert set(os.listdir(CASES)) == {*REFUSED, *READ, *TEXTS, *elsewhere}
