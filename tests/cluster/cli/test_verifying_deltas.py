"""`alphafuse verify` reads the deltas of an export."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.workspaces.exported_model import exported

from alphafuse.config import Config
from alphafuse.errors import WorkspaceError
from alphafuse.serving.deltas import REMOVED_FILE, delta_at
from alphafuse.storage.manifest import content_fingerprint, fingerprint
from alphafuse.storage.workspace import Workspace
from cluster.cli.verifying import verify_workspace


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An export with one delta, which removes an item."""
    config = exported(tmp_path / "run")
    export = Workspace(config.workspace).artifact("export")
    inputs = {"export": content_fingerprint(export.require()), "before": ""}
    delta = delta_at(export.folder, 1)
    delta.write_file(REMOVED_FILE, b'["item 3"]', fingerprint(inputs))
    delta.commit(inputs, {"removed": 1})
    return config


@pytest.mark.parametrize("repair", [False, True])
def test_whole_and_damaged_deltas(config: Config, repair: bool, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace(config.workspace)
    verify_workspace(config, workspace, repair=True)  # of what the workspace made by hand lacks
    assert "export/deltas: 1 as committed" in capsys.readouterr().out
    path = Path(workspace.folder.uri) / "export" / "deltas" / "000001" / REMOVED_FILE
    path.write_bytes(b'["item 4"]')
    with pytest.raises(WorkspaceError, match=r"deltas/000001/removed\.json cannot be used.*alphafuse add-items"):
        verify_workspace(config, workspace, repair)
    assert path.exists()
