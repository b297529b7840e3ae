"""Writes the dashboards."""

from monitoring.grafana.boards import BOARDS, FOLDER

for board in BOARDS:
    (FOLDER / f"{board.name}.json").write_text(board.to_json())
