"""The list of settings in the documentation is that of the sections."""

from __future__ import annotations

from alphafuse.config.settings_page import PAGE, reference, with_reference


def test_the_documentation_lists_the_settings() -> None:
    page = PAGE.read_text()
    assert page == with_reference(page), "the settings have changed: .venv/bin/python -m alphafuse.config.settings_page"


def test_keys_are_as_a_configuration_has_them() -> None:
    rows = reference().splitlines()
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
    assert not [row for row in reference().splitlines() if row.endswith("|  |")]
