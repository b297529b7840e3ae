"""The page about a hand-made run: figures appear, texts are escaped, nothing is loaded, gaps are named."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from tiny_workspace import tiny_config, tiny_workspace

from alphafuse.artifact import fingerprint
from alphafuse.config import Config
from alphafuse.events import Event
from alphafuse.workspace import Workspace
from jobs import report
from monitoring.event_log import EventLog

METRICS = {f"{name}@{k}": k / 1000 for name in ("hr", "ndcg", "mrr") for k in (1, 5, 10, 20, 50)}
EVIL = '<script>alert("x")</script> & co'


class _Tags(html.parser.HTMLParser):
    """Checks that every tag is closed in turn, and collects what a browser would load."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            local = (value or "").startswith("#")
            if (name in ("src", "href", "xlink:href") and not local) or tag in ("script", "link", "iframe"):
                self.loaded.append(f"{tag} {name} {value}")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Config, Workspace]:
    """A workspace in which every stage before the report has committed something recognisable."""
    config, workspace = tiny_config(tmp_path), tiny_workspace(tmp_path)
    for name in ("catalog", "sequences", "embeddings", "nullspace"):
        (tmp_path / name / "manifest.json").unlink()
    workspace.artifact("catalog").commit(
        {"made by": "hand"}, {"items": 30, "duplicate_ids_dropped": 7, "empty_texts": 0}
    )
    targets = {"train": 12_345, "validation": 6, "test": 7}
    workspace.artifact("sequences").commit(
        {"made by": "hand"}, {"users": 24, "out_of_order": 48_603, "targets": targets}
    )
    encoder = {"engine": "vllm", "model": "org/model", "files": {"weights": "sha"}, "revision": None}
    reasons = {"quarantined_by_reason": {EVIL: 3}}
    embedded = {"items": 30, "quarantined": 3, "encoder": encoder, **reasons}
    workspace.artifact("embeddings").commit({"made by": "hand"}, embedded)
    arrays = {
        "mean": np.zeros(12),
        "basis": np.eye(12, 8),
        "eigenvalues": np.ones(8),
        "spectrum": np.arange(12.0, 0, -1),
    }
    numbers = {"embedding_dim": 12, "hidden_dim": 8, "row_dim": 5, "null_dim": 3, "method": "gram", "scale": 40.0}
    numbers |= {"standardize": True, "total_variance": 78.0, "retained_energy": 0.8719, "clamped": 0}
    nullspace = workspace.artifact("nullspace")
    made_by = {"made by": "hand"}
    nullspace.write_file("nullspace.safetensors", safetensors.numpy.save(arrays), fingerprint(made_by))
    nullspace.commit(made_by, numbers)
    history = [
        {"epoch": epoch, "loss": 9.0 / epoch, "validation": {"ndcg@20": 0.01 * epoch} if epoch != 2 else None}
        for epoch in (1, 2, 3)
    ]
    best = {"value": 0.03, "epoch": 3, "step": 9}
    training = {"history": history, "best": best, "stopped": "patience", "steps": 9, "world_size": 2}
    workspace.artifact("model").commit({"train": {"monitor": "ndcg@20", "learning_rate": 0.125}}, training)
    empty = {"queries": 0, **dict.fromkeys(METRICS)}
    evaluation = {
        "similarity": "cosine",
        "exclude_seen": False,
        "queries": 15_192,
        "num_items": 30,
        "overall": METRICS,
        "slices": {"items": {"head": {"queries": 9, **METRICS}}, "histories": {"long": empty}},
        "catalog": {
            **{
                f"{name}@{k}": 0.5
                for name in ("coverage", "average_popularity", "tail_share")
                for k in (1, 5, 10, 20, 50)
            },
            "target_average_popularity": 4.25,
            "target_tail_share": 0.125,
        },
    }
    artifact = workspace.artifact("evaluation")
    artifact.folder.write_bytes("metrics.json", json.dumps(evaluation).encode())
    artifact.commit({}, {})
    item = {"item_id": "1", "title": EVIL, "text": "a text", "score": 0.75}
    examples = [{"user_id": EVIL, "history": ["Heat"], "recommended": [item]}]
    workspace.artifact("recommendations").commit({}, {"examples": examples})
    log = EventLog(workspace)
    for stage, kind, time in (("train", "started", 0.0), ("train", "started", 100.0), ("train", "finished", 225.0)):
        log(Event(stage, kind, {}, time))
    return config, workspace


def _page(config: Config, workspace: Workspace) -> str:
    report.run(config, workspace, lambda event: None)
    page = workspace.artifact("report").folder.read_bytes("index.html").decode()
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.loaded == []
    assert not re.search(r"url\((?!#)|@import", page)
    return page


def test_every_part_is_on_the_page(finished: tuple[Config, Workspace]) -> None:
    page = _page(*finished)
    for shown in (
        "15,192", "0.0100", "head items", "4.2", "12.5%",  # results
        "3 epochs, 9 steps on 2 workers; best validation 0.0300 in epoch 3. Stopped: patience.",
        "5 row space, 3 null space (gram, 87.2% of the variance kept)", "left out (4)", "row space, frozen (5)",
        "12,345", "log: train targets",
        "⚠ catalog: duplicate ids dropped", "⚠ log: out of order", "48,603", "org/model", "Heat", "a text", "0.750",
        "2 min 05 s", "not run", "batch_size: 10", "Python",
    ):  # fmt: skip
        assert shown in page, shown
    assert "empty texts" not in page  # met no case
    assert page.count("<svg") == 2


def test_texts_of_the_data_are_escaped(finished: tuple[Config, Workspace]) -> None:
    page = _page(*finished)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3  # reason, user, title


def test_stages_that_have_not_run_are_named(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    page = _page(tiny_config(tmp_path), workspace)
    for stage in ("evaluate", "train", "recommend", "prepare"):
        assert f"the stage <code>{stage}</code> has not finished" in page
    assert "<svg" not in page


def test_the_page_is_made_again_when_what_it_shows_changes(finished: tuple[Config, Workspace]) -> None:
    config, workspace = finished
    first = _page(config, workspace)
    made = workspace.artifact("report").require().created
    assert _page(config, workspace) == first
    assert workspace.artifact("report").require().created == made
    workspace.artifact("evaluation").clear()
    assert "the stage <code>evaluate</code> has not finished" in _page(config, workspace)
