"""The CPUs that workers take where nothing is said."""

from __future__ import annotations

from typing import Any

import pytest

from alphafuse.config.sections.resources import EngineResources, RankResources, Resources, TaskResources


@pytest.mark.parametrize(
    ("kind", "settings", "cpus"),
    [
        (Resources, {}, 1),
        (RankResources, {}, 1),
        (RankResources, {"gpus": 1}, 8),
        (RankResources, {"gpus": 0.5}, 4),
        (RankResources, {"gpus": 0.01}, 1),
        (RankResources, {"gpus": 1, "cpus": 3}, 3),
        (TaskResources, {}, 1),
        (TaskResources, {"gpus": 0.25}, 2),
        (EngineResources, {"gpus": 0}, 1),
        (EngineResources, {"gpus": 4}, 32),
        (EngineResources, {"gpus": 2, "cpus": 0}, 0),
    ],
)
def test_a_worker_with_gpus_takes_eight_cpus_for_each(kind: Any, settings: dict[str, float], cpus: float) -> None:
    resources = kind.model_validate(settings)
    assert resources.cpus == cpus
    assert kind.model_validate(resources.model_dump()) == resources
