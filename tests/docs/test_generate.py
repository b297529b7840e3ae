"""The lists of settings and metrics in the documentation are complete and current."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import FOLDER, PAGES, generated, settings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_follow_the_code(page: Path) -> None:
    assert page.read_text() == generated(page), "the code has changed: .venv/bin/python -m docs.generate"


def test_the_documentation_lists_the_metrics() -> None:
    assert "| `alphafuse_train_step_seconds` | histogram |" in (FOLDER / "monitoring.md").read_text()


def test_keys_are_as_a_configuration_has_them() -> None:
    rows = settings().splitlines()
    for beginning in (
        "| `train.learning_rate` | number > 0 | `0.003` | Learning rate of the dense weights",
        "| `data.catalog.path` | text | **required** | ",
        "| `model.backbone.schedule` | `linear`, `cosine`, `exp`, `sqrt` | `linear` | ",
        "| `ray.node_groups.NAME.gpus` | number ≥ 0 | `0` | ",
    ):
        assert any(row.startswith(beginning) for row in rows), beginning
    assert {"### `model.encoder`, `name: id`", "### `model.backbone`, `name: sasrec` (the default)"} <= {*rows}
    assert not [row for row in rows if row.startswith("| `model.encoder.name`")]  # the headings say it


def test_every_setting_has_a_meaning() -> None:
    assert not [row for row in settings().splitlines() if row.endswith("|  |")]
