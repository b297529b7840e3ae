"""The learning rate's factor at hand-computed steps."""

from __future__ import annotations

import pytest

from alphafuse.config import ScheduleConfig
from alphafuse.training.schedule import rate_factor


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_warm_up_then_kind(kind: str, expected: list[float]) -> None:
    config = ScheduleConfig(kind=kind, warmup_steps=2)
    assert [rate_factor(config, step, 6) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert rate_factor(ScheduleConfig(kind="cosine"), 0, 10) == 1.0
