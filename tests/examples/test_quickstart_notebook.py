"""The notebook of the quick start, from its first cell to its last, with twenty steps in place of fifteen epochs."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.mark.engine
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    (training,) = [cell for cell in code if '"train": {"max_epochs": EPOCHS}' in cell.source]
    training.source = training.source.replace('"max_epochs": EPOCHS', '"max_steps": 20')
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()

    text = {cell.id: _text(cell) for cell in code}
    (table,) = [shown for shown in text.values() if "ndcg@10, tail items" in shown]
    rows = {line.rsplit(maxsplit=5)[0].strip(): line.split()[-5:] for line in table.splitlines()[1:]}
    assert {*rows} == {"popularity", "IDs alone", "AlphaFuse"}
    assert 0.03 < float(rows["popularity"][1]) < 0.06  # NDCG@10, whatever the steps
    assert sum("item_id" in shown and "score" in shown for shown in text.values()) == 2
    assert any("192 directions hold" in shown for shown in text.values())
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


def test_the_notebook_shows_what_it_gave() -> None:
    """All cells were executed, in order, and none failed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)


def _text(cell: nbformat.NotebookNode) -> str:
    """The plain text that a cell shows."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(shown)
