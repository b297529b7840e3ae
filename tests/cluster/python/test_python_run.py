"""`alphafuse.Run`: the lines of README as they stand there, and what becomes of tables and settings."""

from __future__ import annotations

import csv
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from support.workspaces.tiny_workspace import tiny_config

import alphafuse
from alphafuse.config import Config
from alphafuse.data.importers.source import find_sources
from alphafuse.errors import ConfigError, DataError
from alphafuse.events import Listener
from alphafuse.stages import Stage
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from cluster.python import run as python_run

ROOT = Path(__file__).parents[3]


@pytest.mark.engine
def test_the_lines_of_the_readme(tmp_path: Path) -> None:
    (code,) = re.findall(r"^## From Python\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.M | re.S)
    draw, words = random.Random(0), [f"word{number}" for number in range(50)]
    _write_csv(
        tmp_path / "items.csv",
        [("item_id", "text", "title"), *((item, " ".join(draw.sample(words, 5)), f"T{item}") for item in range(250))],
    )
    log = [(user, draw.randrange(250), time) for user in range(100) for time in range(8)]
    _write_csv(tmp_path / "interactions.csv", [("user_id", "item_id", "timestamp"), *log, (0, 7, 9), (0, 12, 10)])
    (tmp_path / "lines.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "lines.py"], cwd=tmp_path, capture_output=True, text=True, timeout=500, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^✓ (\w+)", done.stdout, re.M) == [
        "prepare", "embed", "decompose", "train", "evaluate", "export"
    ]  # fmt: skip
    (ndcg,) = re.findall(r"^[\d.e-]+$", done.stdout, re.M)
    assert 0 <= float(ndcg) <= 1
    found = re.findall(r"Recommended\(item_id='(\d+)', title='T(\d+)'", done.stdout.splitlines()[-1])
    assert len(found) == 3
    assert all(item == title and item not in ("12", "7") for item, title in found)


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, list[str], str | None]]:
    """Calls of `run_stages`, which runs nothing: configuration, names of the stages, and of the one to redo."""
    made: list[tuple[Config, list[str], str | None]] = []

    def record(
        config: Config, workspace: Workspace, stages: Sequence[Stage], show: Listener, again: Stage | None
    ) -> None:
        made.append((config, [stage.name for stage in stages], again and again.name))

    monkeypatch.setattr(python_run, "run_stages", record)
    return made


ITEMS = pd.DataFrame({"item_id": [1, 2, 3], "text": ["a", "b", "c"]})
LOG = pd.DataFrame({"user_id": [1, 1, 1], "item_id": [1, 2, 3], "timestamp": [1, 2, 3]})


def test_tables_become_sources_that_are_found_again(tmp_path: Path, calls: list[Any]) -> None:
    run = alphafuse.Run(workspace=str(tmp_path), model={"encoder": {"name": "id"}})
    assert run.fit(interactions=LOG, items=ITEMS) is run
    run.fit(interactions=pa.Table.from_pandas(LOG), items=pa.Table.from_pandas(ITEMS), redo="train")
    assert [(stages, again) for _, stages, again in calls] == [
        (["prepare", "train"], None),
        (["prepare", "train"], "train"),
    ]
    assert calls[0][0] == calls[1][0]
    written = sorted(path.name for path in (tmp_path / "sources").iterdir())
    assert [name.partition("-")[0] for name in written] == ["catalog", "interactions"]
    (source,) = find_sources("data.interactions", run.config.data.interactions, ".")
    (table,) = source.read(["user_id", "item_id", "timestamp"])
    assert table.to_pydict() == LOG.to_dict("list")
    run.fit(interactions=LOG.head(2))
    assert len([*(tmp_path / "sources").iterdir()]) == 3
    assert calls[2][0].data.catalog == calls[0][0].data.catalog


def test_settings_change_those_of_a_file(tmp_path: Path) -> None:
    tree = tiny_config(tmp_path / "run").model_dump(mode="json")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    for config in (tmp_path / "config.yaml", str(tmp_path / "config.yaml"), tree):
        run = alphafuse.Run(config, train={"max_epochs": 9}, seed=3)
        assert run.config == tiny_config(tmp_path / "run", max_epochs=9).model_copy(update={"seed": 3})
    assert tree["seed"] == 7


def test_results_come_as_the_kind_of_table_that_was_given(tmp_path: Path, calls: list[Any]) -> None:
    run = alphafuse.Run(workspace=str(tmp_path), model={"encoder": {"name": "id"}})
    table = pa.table({"user_id": ["1"], "item_ids": [["2"]], "titles": [["b"]], "scores": pa.array([[0.5]])})
    run.workspace.artifact("recommendations").write_table("part-00000.parquet", table, fingerprint({}))
    run.workspace.artifact("recommendations").commit({})
    run.workspace.artifact("evaluation").write_file("metrics.json", b'{"overall": {"hr@10": 0.5}}', fingerprint({}))
    run.workspace.artifact("evaluation").commit({})
    assert run.recommend() == table
    run.fit(interactions=LOG, items=ITEMS)
    assert isinstance(run.recommend(redo=True), pd.DataFrame)
    assert run.evaluate() == {"overall": {"hr@10": 0.5}}
    assert [(stages, again) for _, stages, again in calls] == [
        (["recommend"], None),
        (["prepare", "train"], None),
        (["recommend"], "recommend"),
        (["evaluate"], None),
    ]


def test_what_cannot_be_used_is_refused(tmp_path: Path, calls: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"train\.max_epoch: unknown key; did you mean 'train\.max_epochs'"):
        alphafuse.Run(workspace=str(tmp_path), train={"max_epoch": 3})
    with pytest.raises(ConfigError, match="workspace"):
        alphafuse.Run()
    with pytest.raises(ConfigError, match="credential"):
        alphafuse.Run(workspace="s3://user:hunter22@bucket/run")
    run = alphafuse.Run(workspace=str(tmp_path))
    with pytest.raises(ConfigError, match=r"there are no items: give `fit` a table, `items=`, or set data\.catalog"):
        run.fit(interactions=LOG)
    with pytest.raises(DataError, match="interactions must be a table of pandas or pyarrow, found list"):
        run.fit(interactions=[1], items=ITEMS)
    with pytest.raises(DataError, match="has no column 'text'"):
        run.fit(interactions=LOG, items=ITEMS.drop(columns="text"))
    with pytest.raises(DataError, match="catalog cannot be read"):
        run.fit(interactions=LOG, items=pd.DataFrame({"item_id": [1, "a"], "text": ["a", "b"]}))
    with pytest.raises(ConfigError, match="there is no stage 'fit'"):
        run.fit(interactions=LOG, items=ITEMS, redo="fit")
    assert calls == []
