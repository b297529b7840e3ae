"""The page about serving: its example without this project gives the lists of the loaded model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.workspaces.exported_model import exported
from support.workspaces.tiny_workspace import tiny_sequences

from alphafuse.serving.recommender import load

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.mark.engine
def test_the_example_recommends_what_the_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path, onnx=True, index=True)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    histories = [[f"item {item}" for item in history] for history in tiny_sequences()]
    wanted = load(tmp_path).recommend(histories, 5)
    for history, items in zip(histories, wanted, strict=True):
        assert names["recommend"](history, 5) == [item.item_id for item in items]
