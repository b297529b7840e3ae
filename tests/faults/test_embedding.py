"""Embedding that loses an engine, and then a machine with another engine, gives the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from support.faults.fault_machines import CPUS, joined
from support.workspaces import embed_cases
from support.workspaces.embed_cases import CONFIG, HashEncoder, vector, write_catalog

from alphafuse.config.sections.resources import EngineResources
from alphafuse.events import ignore
from alphafuse.language.text_encoders.encoder import Computed
from alphafuse.language.text_encoders.pieces import Piece
from alphafuse.storage.matrices import read_rows
from alphafuse.storage.workspace import Workspace
from jobs.stages.embed import embed

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

TEXTS = [f"text {number}" for number in range(300)]
SHARD_ROWS = 40


class DoomedEncoder(HashEncoder):
    """Replaces a language model; the stage starts, feeds and restarts it like vLLM.

    Once in the run the text "text 50" kills the engine that embeds it, and "text 170" the whole machine.
    """

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        texts = [piece.text for piece in pieces]
        if "text 50" in texts and self._first_time("engine"):
            os.kill(os.getpid(), signal.SIGKILL)
        if "text 170" in texts and self._first_time("machine"):
            os.kill(os.getppid(), signal.SIGKILL)  # the raylet
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(pieces)

    def _first_time(self, what: str) -> bool:
        try:
            (self.folder / what).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


for module in (embed_cases, sys.modules[__name__]):
    ray.cloudpickle.register_pickle_by_value(module)  # the workers cannot import modules of the tests


def test_an_engine_and_a_machine_are_lost(tmp_path: Path, ray_cluster: Cluster) -> None:
    results = {}
    for name, kind, places in (("undisturbed", HashEncoder, {}), ("broken", DoomedEncoder, {"cpus": CPUS})):
        (tmp_path / name).mkdir()
        workspace = Workspace(str(tmp_path / name / "run"))
        write_catalog(workspace, TEXTS, SHARD_ROWS)
        encoder = kind(tmp_path / name, seconds_per_batch=0.1)
        config = CONFIG.model_copy(update={"resources": EngineResources(workers=2, **places)})
        with joined(ray_cluster, 2 if places else 0):
            embed(encoder, config, workspace, ignore)
        artifact = workspace.artifact("embeddings")
        artifact.verify()
        manifest = artifact.require()
        assert manifest.rows == len(TEXTS)
        results[name] = {file.name: file.sha256 for file in manifest.files}
        expected = np.stack([vector(text) for text in TEXTS])
        np.testing.assert_allclose(read_rows(artifact, "embedding", 0, len(TEXTS)), expected, rtol=1e-6)
        assert set(encoder.embedded()) == set(TEXTS)
    assert (tmp_path / "broken" / "engine").exists()
    assert (tmp_path / "broken" / "machine").exists()
    assert results["broken"] == results["undisturbed"]
