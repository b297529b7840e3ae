"""The encoder and the backbone that docs/methods.md shows, as the package `shop` of a user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs" / "methods.md"
OWN_MODEL: dict[str, Any] = {
    "encoder": {"name": "shop.encoders:TextPlusId", "initialization": "normal"},
    "backbone": {"name": "shop.backbones:RecentMean", "decay": 0.5},
}


def write_own_package(folder: Path) -> None:
    """Write the files that the page names, with the content that it shows."""
    files = re.findall(r"the file `(shop/\w+\.py)`.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [name for name, _ in files] == ["shop/encoders.py", "shop/backbones.py"]
    (folder / "shop").mkdir()
    for name, content in files:
        (folder / name).write_text(content)
