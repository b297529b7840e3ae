"""Messages of errors, whatever the values in them."""

from __future__ import annotations

from alphafuse.errors import LONGEST_MESSAGE, DataError, WorkspaceError


def test_a_message_is_what_it_was_made_from() -> None:
    assert str(DataError("a.csv has no column 'item'")) == "a.csv has no column 'item'"
    assert str(WorkspaceError("The model is damaged.", "Train again")) == "The model is damaged. Train again"
    assert str(WorkspaceError("The model is damaged.")) == "The model is damaged."


def test_long_values_leave_room_for_fault_and_remedy() -> None:
    message = str(DataError(f"column {'A' * 100_000!r} is missing. Rename it"))
    assert message == f"column '{'A' * 79}… (100,002 characters) is missing. Rename it"
    columns = ", ".join(f"column_{number}" for number in range(100_000))
    message = str(DataError(f"a.csv has no column 'item'. Its columns: {columns}. Rename one"))
    assert message.startswith("a.csv has no column 'item'. Its columns: column_0, column_1, ")
    assert message.endswith(", column_99998, column_99999. Rename one")
    assert len(message) <= LONGEST_MESSAGE
