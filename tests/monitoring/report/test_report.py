"""The page about a hand-made run: figures appear, texts are escaped, nothing is loaded, gaps are named."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path

import pytest
from support.workspaces.finished_workspace import finished_workspace
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config
from alphafuse.storage.workspace import Workspace
from jobs.stages import report

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
    return finished_workspace(tmp_path, EVIL)


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
        "15,192", "0.0100", "head items", "4.2", "12.5%", "NDCG of recent popularity", "0.0625",  # results
        "NDCG after shuffled histories", "0.0375",
        "3 epochs, 9 steps on 2 workers; best validation 0.0300 in epoch 3. Stopped: patience.",
        "5 row space, 3 null space (gram, 87.2% of the variance kept)", "left out (4)", "row space, frozen (5)",
        "12,345", "log: train targets",
        "⚠ catalog: duplicate ids dropped", "⚠ log: out of order", "48,603", "org/model", "Heat", "a text", "0.750",
        "2 min 05 s", "not run", "batch_size: 10", "Python",
    ):  # fmt: skip
        assert shown in page, shown
    assert "empty texts" not in page  # there are none
    assert page.count("<svg") == 2


def test_the_item_that_came_next_is_marked(finished: tuple[Config, Workspace]) -> None:
    page = _page(*finished)
    listed = re.findall(r"<h3>Ranked first</h3>\n<ol>(.*?)</ol>", page)
    assert [re.findall("<li>(.*?)</li>", each) for each in listed] == [
        ["item 3", "<mark>item 4</mark> ✓ taken next", "item 5"],
        ["item 3", "item 4", "item 5"],
        ["<mark>item 11</mark> ✓ taken next"],
    ]
    assert page.count("Taken next: ") == 1
    assert 'Taken next: <mark>item 9</mark> <span class="soft">(rank 1,234)</span>' in page
    assert "<summary>1 more</summary>" in page


def test_texts_of_the_data_are_escaped(finished: tuple[Config, Workspace]) -> None:
    page = _page(*finished)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4  # reason, the user of each list, title


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


def test_an_update_says_what_became_of_the_null_space_and_of_the_items(finished: tuple[Config, Workspace]) -> None:
    config, workspace = finished
    assert "Update of another workspace" not in _page(config, workspace)
    angles = {"row_angle": 1.25, "null_angle": 20.0, "kept_angle": 0.5}
    drift = {"kind": "recomputed", "reason": EVIL, "lost_energy": 0.01, "distortion": 0.3, "shift": 0.125, **angles}
    carried = {"carried": 28, "new": 1_234, "removed": 5, "moments": False, "ndcg@20": 0.0625}
    best = {"value": 0.0625, "epoch": 0, "step": 0}
    for name, details in (("nullspace", {"update": drift}), ("model", {"update": carried, "best": best})):
        artifact, made = workspace.artifact(name), workspace.artifact(name).require()
        artifact.uncommit()
        artifact.commit(made.inputs, {**made.details, **details})
    workspace.artifact("report").clear()
    page = _page(config, workspace)
    for shown in ("recomputed (&lt;script&gt;", "0.125", "20.0°", "1,234", "begun at zero", "before the first step"):
        assert shown in page
    assert EVIL not in page
