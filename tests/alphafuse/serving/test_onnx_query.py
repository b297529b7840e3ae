"""The query side in ONNX Runtime against the loaded model, on the vectors that the export holds for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
from support.workspaces.exported_model import DIFFUSION, DREAMREC, exported
from support.workspaces.tiny_workspace import tiny_sequences

from alphafuse.serving.export_files import ONNX_FILE
from alphafuse.serving.recommender import load

LENGTH = 4
"""History length of the model."""


@pytest.mark.engine
@pytest.mark.parametrize(
    ("model", "train"),
    [
        ({}, {}),
        ({"backbone": {"name": "hstu", "num_layers": 2}}, {}),
        ({"backbone": {"name": "gru4rec", "num_layers": 2}}, {"loss": {"similarity": "dot", "num_negatives": 6}}),
        ({"encoder": {"name": "llm_esr"}, "backbone": DREAMREC}, DIFFUSION),
    ],
    ids=["sasrec", "hstu", "gru4rec", "llm_esr with dreamrec"],
)
def test_vectors_of_histories_are_equal(tmp_path: Path, model: dict[str, Any], train: dict[str, Any]) -> None:
    exported(tmp_path, model, onnx=True, **train)
    table = pq.read_table(sorted((tmp_path / "export").glob("items-*.parquet")))
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    histories = [history[-LENGTH:] for history in tiny_sequences()]
    histories[0] = histories[0][:1]
    lengths = np.array([len(history) for history in histories])
    padded = np.full((len(histories), LENGTH, vectors.shape[1]), 9.0, np.float32)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = vectors[history]

    content = (tmp_path / "export" / ONNX_FILE).read_bytes()
    session = onnxruntime.InferenceSession(content)
    wanted = load(tmp_path).history_vectors([[f"item {item}" for item in history] for history in histories])
    for chosen in (slice(0, 1), slice(None)):  # any number of histories
        (found,) = session.run(None, {"item_vectors": padded[chosen], "lengths": lengths[chosen]})
        np.testing.assert_allclose(found, wanted[chosen], rtol=0, atol=1e-5)
    assert str(Path(__file__).parents[3]).encode() not in content
