"""A configuration of an earlier version is answered with the present name of its key."""

from __future__ import annotations

import pytest

from alphafuse.config import Config, GridConfig, parse_config
from alphafuse.config.messages import dotted_keys
from alphafuse.config.removed import REMOVED
from alphafuse.errors import ConfigError


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REMOVED, "train.engines", "train.workers")
    monkeypatch.setitem(REMOVED, "model.encoder.fuse", "model.encoder.fusion")
    monkeypatch.setitem(REMOVED, "shards", "the number of shards follows from the catalog")


@pytest.mark.usefixtures("removed")
def test_the_message_says_what_replaces_the_key() -> None:
    data = {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}}
    sections = {"train": {"engines": 2}, "model": {"encoder": {"name": "alphafuse", "fuse": "add"}}}
    with pytest.raises(ConfigError) as error:
        parse_config({"workspace": "runs/x", "data": data, "shards": {"rows": 3}, **sections})
    assert str(error.value).splitlines() == [
        "model.encoder.fuse: this key is called 'model.encoder.fusion' now",
        "train.engines: this key is called 'train.workers' now",
        "shards: this key is gone: the number of shards follows from the catalog",
    ]


def test_no_key_is_both_removed_and_valid_and_each_rename_leads_to_a_valid_key() -> None:
    valid = {*dotted_keys(Config), *dotted_keys(GridConfig)}
    assert not valid & REMOVED.keys()
    assert {new for new in REMOVED.values() if " " not in new} <= valid
