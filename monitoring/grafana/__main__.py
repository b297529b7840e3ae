"""Writes every dashboard as a JSON file that Grafana imports, or reads from a folder that it provisions from."""

import argparse
from pathlib import Path

from monitoring.grafana.all_boards import BOARDS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m monitoring.grafana", description=__doc__)
    parser.add_argument("folder", type=Path, help="made where it is missing; files of these names are replaced")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        path = folder / f"{board.name}.json"
        path.write_text(board.to_json())
        print(path)


if __name__ == "__main__":
    main()
