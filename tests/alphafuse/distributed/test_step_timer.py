"""Phases and counts against a clock whose hands the test moves."""

from __future__ import annotations

import pytest
import torch

from alphafuse.distributed.step_timer import CudaClock, Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def mark(self) -> float:
        return self.now

    def seconds(self, start: float, end: float) -> float:
        return end - start


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    meter = Meter()
    meter._clock = clock
    return meter


def test_phases_nest_and_add_up(meter: Meter, clock: Clock) -> None:
    def batches():
        for seconds in (1.0, 2.0):
            clock.now += seconds
            yield seconds

    taken = []
    for batch in meter.steps(batches()):
        with meter.phase("lookup"):
            clock.now += 10
            with meter.phase("exchange"):
                clock.now += 20
            clock.now += 30
        clock.now += 40  # in no phase
        with meter.phase("exchange"):
            clock.now += batch
        meter.count("rows", 3)
        meter.count("rows", batch)
        taken.append(meter.end_step())
        clock.now += 1000  # between the steps
    assert taken == [
        {"seconds": 102.0, "data_seconds": 1.0, "lookup_seconds": 40.0, "exchange_seconds": 21.0, "rows": 4.0},
        {"seconds": 104.0, "data_seconds": 2.0, "lookup_seconds": 40.0, "exchange_seconds": 22.0, "rows": 5.0},
    ]


def test_outside_of_a_step_nothing_is_measured(meter: Meter, clock: Clock) -> None:
    meter.count("rows", 7)
    with meter.phase("lookup"):
        clock.now += 5
    steps = meter.steps([None])
    next(steps)
    assert meter.end_step() == {"seconds": 0.0, "data_seconds": 0.0}
    meter.count("rows", 7)
    assert next(steps, "over") == "over"
    assert not meter._marks


def test_an_error_leaves_its_phase(meter: Meter, clock: Clock) -> None:
    steps = meter.steps([None, None])
    next(steps)
    with pytest.raises(KeyError), meter.phase("forward"):
        raise KeyError
    next(steps)
    with meter.phase("forward"):
        clock.now += 1
    assert meter.end_step() == {"seconds": 1.0, "data_seconds": 0.0, "forward_seconds": 1.0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured_on_its_own_clock() -> None:
    meter = Meter(torch.device("cuda"))
    assert isinstance(meter._clock, CudaClock)
    steps = meter.steps([None])
    next(steps)
    with meter.phase("forward"):
        torch.cuda._sleep(100_000_000)  # cycles; Python goes on at once
    with meter.phase("backward"):
        pass
    taken = meter.end_step()
    assert taken["forward_seconds"] > 10 * taken["backward_seconds"]
