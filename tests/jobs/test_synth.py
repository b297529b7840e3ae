"""Synthetic data as files: complete, continued if half written, and read by the stages with their configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alphafuse.config import RayConfig, load_config
from alphafuse.data.synthetic import SyntheticData
from alphafuse.errors import DataError
from alphafuse.events import Event, Progress, StageFinished, StageStarted, ignore
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.matrices import read_rows
from alphafuse.storage.workspace import Workspace
from jobs import synth
from jobs.stages import decompose, embed, prepare

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

DATA = SyntheticData(num_items=9_000, num_users=300, dim=12, seed=3)


def test_the_stages_read_what_was_written(tmp_path: Path) -> None:
    events: list[Event] = []
    synth.run(DATA, Folder(str(tmp_path)), RayConfig(), events.append)
    assert [type(event) for event in events] == [StageStarted, *[Progress] * 3, StageFinished]
    assert isinstance(events[-2], Progress)
    assert events[-2].done == events[-2].total == 9_300
    config = load_config(tmp_path / "config.yaml")
    workspace = Workspace(config.workspace)
    prepare.run(config, workspace, ignore)
    embed.run(config, workspace, ignore)

    catalog, sequences = workspace.artifact("catalog"), workspace.artifact("sequences")
    assert (catalog.require().rows, sequences.require().rows) == (9_000, 300)
    items = catalog.read_table(catalog.require().files[0])
    rows = read_rows(workspace.artifact("embeddings"), "embedding", 0, 50)
    made = np.concatenate([DATA.embeddings(0), DATA.embeddings(1)])
    number = [int(item_id[1:]) for item_id in items["item_id"].to_pylist()[:50]]
    np.testing.assert_allclose(rows, made[number], atol=1e-3)  # float16
    log = DATA.interactions_of(0).to_pandas()
    user = sequences.read_table(sequences.require().files[0]).to_pylist()[0]
    expected = log[log.user_id == user["user_id"]].item_id.tolist()
    index = dict(zip(items["item_index"].to_pylist(), items["item_id"].to_pylist(), strict=True))
    assert [index[item] for item in user["items"]] == expected


def test_files_that_are_there_are_kept_and_other_settings_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    synth.run(DATA, folder, RayConfig(), ignore)
    first, second = (tmp_path / "items" / f"part-0000{number}.parquet" for number in (0, 1))
    content, written = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()  # as if the job had been killed
    own = (tmp_path / "config.yaml").read_text() + "# and what its user has changed\n"
    (tmp_path / "config.yaml").write_text(own)
    synth.run(DATA, folder, RayConfig(), ignore)
    assert (tmp_path / "config.yaml").read_text() == own
    assert second.read_bytes() == content
    assert first.stat().st_mtime_ns == written
    with pytest.raises(DataError, match="holds data of other settings"):
        synth.run(SyntheticData(9_000, 300, 12, seed=4), folder, RayConfig(), ignore)


def test_a_small_catalog_of_wide_embeddings_can_be_decomposed(tmp_path: Path) -> None:
    """No more directions are kept than the items determine."""
    synth.run(SyntheticData(num_items=20, num_users=30, dim=200, seed=3), Folder(str(tmp_path)), RayConfig(), ignore)
    config = load_config(tmp_path / "config.yaml")
    workspace = Workspace(config.workspace)
    for stage in (prepare, embed, decompose):
        stage.run(config, workspace, ignore)
    assert workspace.artifact("features").require().rows == 20
