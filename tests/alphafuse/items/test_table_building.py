"""Building the encoder and the rows of its table from a configuration and a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.workspaces.tiny_workspace import (
    EMBEDDING_DIM,
    HIDDEN_DIM,
    NULL_DIM,
    NUM_ITEMS,
    SCALE,
    tiny_config,
    tiny_embeddings,
    tiny_features,
    tiny_nullspace,
    tiny_workspace,
)

from alphafuse.config import Config, parse_config
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import ConfigError
from alphafuse.items.encoders.base import build_encoder
from alphafuse.items.table_building import build_table
from alphafuse.storage.workspace import Workspace

ROW_DIM = HIDDEN_DIM - NULL_DIM
BASIS = tiny_nullspace().basis
CENTRED = SCALE * (tiny_embeddings() - tiny_embeddings().mean(axis=0, dtype=np.float64))


def _config(folder: Path, hidden_dim: int = HIDDEN_DIM, directions: int | None = None, **encoder: Any) -> Config:
    tree = tiny_config(folder).model_dump(mode="json")
    tree["model"] |= {"encoder": encoder, "hidden_dim": hidden_dim}
    tree["decompose"]["directions"] = directions
    return parse_config(tree)


def _vectors(config: Config, workspace: Workspace) -> tuple[torch.Tensor, torch.Tensor]:
    """Item vectors before training, and the trainable rows."""
    encoder = build_encoder(config, workspace).eval()
    table = build_table(config, workspace, encoder, Communicator(), torch.device("cpu"))
    with torch.no_grad():
        return encoder(table.features, table.trainable), table.trainable


@pytest.mark.parametrize("name", ["morec", "unisrec", "rlmrec_con", "rlmrec_gen", "llm_esr"])
def test_embeddings_are_read_and_scaled(tmp_path: Path, name: str) -> None:
    config, workspace = _config(tmp_path, name=name), tiny_workspace(tmp_path)
    encoder = build_encoder(config, workspace)
    table = build_table(config, workspace, encoder, Communicator(), torch.device("cpu"))
    torch.testing.assert_close(table.features, torch.from_numpy(SCALE * tiny_embeddings()))


@pytest.mark.parametrize(
    "encoder", [{"name": "idreamrec"}, {"name": "llminit"}, {"name": "alphafuse", "frozen": False}]
)
def test_vectors_that_begin_as_features(tmp_path: Path, encoder: dict[str, Any]) -> None:
    vectors, rows = _vectors(_config(tmp_path, **encoder), tiny_workspace(tmp_path))
    assert torch.equal(vectors, torch.from_numpy(tiny_features()))
    assert rows.shape == (NUM_ITEMS, 0 if encoder["name"] == "idreamrec" else HIDDEN_DIM)


def test_ids_of_llm_esr_begin_as_features(tmp_path: Path) -> None:
    vectors, rows = _vectors(_config(tmp_path, name="llm_esr"), tiny_workspace(tmp_path))
    assert torch.equal(rows, torch.from_numpy(tiny_features()))
    assert torch.equal(vectors[:, :HIDDEN_DIM], rows)
    assert vectors.shape == (NUM_ITEMS, 2 * HIDDEN_DIM)


def test_whitenrec_reads_more_directions_than_the_model_is_wide(tmp_path: Path) -> None:
    config = _config(tmp_path, hidden_dim=4, directions=HIDDEN_DIM, name="whitenrec")
    vectors, _ = _vectors(config, tiny_workspace(tmp_path))
    assert vectors.shape == (NUM_ITEMS, 4)


def test_euclidean_injection(tmp_path: Path) -> None:
    spaces = {"name": "alphafuse", "injection_space": "euclidean", "initialization": "normal"}
    config, workspace = _config(tmp_path, hidden_dim=EMBEDDING_DIM, **spaces), tiny_workspace(tmp_path)
    vectors, rows = _vectors(config, workspace)
    expected = CENTRED + rows.numpy() @ BASIS[:, ROW_DIM:].T
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)


def test_euclidean_ids(tmp_path: Path) -> None:
    spaces = {"name": "alphafuse", "id_space": "euclidean", "initialization": "normal"}
    vectors, rows = _vectors(_config(tmp_path, **spaces), tiny_workspace(tmp_path))
    assert rows.shape == (NUM_ITEMS, EMBEDDING_DIM)
    expected = tiny_features()
    expected[:, ROW_DIM:] += rows.numpy() @ BASIS[:, ROW_DIM:]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)


def test_items_without_a_text_are_their_ids_alone(tmp_path: Path) -> None:
    """A missing embedding is not an embedding of zeros: it adds nothing to the ID."""
    config = _config(tmp_path, hidden_dim=EMBEDDING_DIM, name="alphafuse", injection_space="euclidean")
    vectors, rows = _vectors(config, tiny_workspace(tmp_path, without_text=[4]))
    expected = CENTRED.copy()
    expected[4] = rows[4].numpy() @ BASIS[:, ROW_DIM:].T
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
    assert np.linalg.norm(vectors[4]) > 0.1  # it begins as an ID does


def test_euclidean_injection_needs_the_width_of_the_embeddings(tmp_path: Path) -> None:
    config = _config(tmp_path, name="alphafuse", injection_space="euclidean")
    with pytest.raises(ConfigError, match=rf"model\.hidden_dim \({HIDDEN_DIM}\) must be {EMBEDDING_DIM}"):
        build_encoder(config, tiny_workspace(tmp_path))
