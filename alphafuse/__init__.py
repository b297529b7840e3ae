"""The names that `import alphafuse` offers. Each is imported when it is first asked for, so that the import is free.

`Run` drives the stages, as the command line does, and stands beside it in `cluster`. It is known here by its place
alone: nothing in this package uses it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alphafuse.evaluation.recommendations import Recommended
    from alphafuse.serving.recommender import Recommender, load
    from cluster.python.run import Run

__all__ = ["Recommended", "Recommender", "Run", "load"]

_PLACES = {
    "Recommended": "alphafuse.evaluation.recommendations",
    "Recommender": "alphafuse.serving.recommender",
    "Run": "cluster.python.run",
    "load": "alphafuse.serving.recommender",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(_PLACES[name])
    except ModuleNotFoundError as error:
        from alphafuse.extras import missing_package

        raise missing_package(error) or error from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
