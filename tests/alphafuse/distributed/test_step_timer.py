"""Spans and counts, with a clock that the test moves."""

from __future__ import annotations

import pytest
import torch

from alphafuse.distributed.step_timer import CudaClock, StepTimer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.reached = 0.0

    def mark(self) -> float:
        return self.now

    def passed(self, mark: float) -> bool:
        return self.reached >= mark

    def seconds(self, start: float, end: float) -> float:
        return end - start


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timer(clock: Clock) -> StepTimer:
    timer = StepTimer()
    timer._clock = clock
    return timer


def test_spans_nest_and_add_up(timer: StepTimer, clock: Clock) -> None:
    def batches():
        for seconds in (1.0, 2.0):
            clock.now += seconds
            yield seconds

    taken = []
    for batch in timer.steps(batches()):
        with timer.span("lookup"):
            clock.now += 10
            with timer.span("exchange"):
                clock.now += 20
            clock.now += 30
        clock.now += 40  # in no span
        with timer.span("exchange"):
            clock.now += batch
        timer.count("rows", 3)
        timer.count("rows", batch)
        taken.append(timer.end_step())
        clock.now += 1000  # between the steps
    assert taken == [
        {"seconds": 102.0, "data_seconds": 1.0, "lookup_seconds": 40.0, "exchange_seconds": 21.0, "rows": 4.0},
        {"seconds": 104.0, "data_seconds": 2.0, "lookup_seconds": 40.0, "exchange_seconds": 22.0, "rows": 5.0},
    ]
    assert timer.totals == {name: taken[0][name] + taken[1][name] for name in taken[0]}


def test_outside_of_a_step_nothing_is_measured(timer: StepTimer, clock: Clock) -> None:
    timer.count("rows", 7)
    with timer.span("lookup"):
        clock.now += 5
    steps = timer.steps([None])
    next(steps)
    assert timer.end_step() == {"seconds": 0.0, "data_seconds": 0.0}
    timer.count("rows", 7)
    assert next(steps, "over") == "over"
    assert not timer._marks


def test_an_error_leaves_its_span(timer: StepTimer, clock: Clock) -> None:
    steps = timer.steps([None, None])
    next(steps)
    with pytest.raises(KeyError), timer.span("forward"):
        raise KeyError
    next(steps)
    with timer.span("forward"):
        clock.now += 1
    assert timer.end_step() == {"seconds": 1.0, "data_seconds": 0.0, "forward_seconds": 1.0}


def test_a_step_is_left_before_the_device_has_finished_it(timer: StepTimer, clock: Clock) -> None:
    steps = timer.steps([None, None])
    next(steps)
    clock.now += 3
    timer.count("rows", 1)
    first = timer.close_step()
    next(steps)
    timer.count("rows", 2)
    assert not first.over()
    clock.reached = clock.now
    assert first.over()
    assert first.taken() == {"seconds": 3.0, "data_seconds": 0.0, "rows": 1}
    assert timer.end_step()["rows"] == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured_on_its_own_clock() -> None:
    timer = StepTimer(torch.device("cuda"))
    assert isinstance(timer._clock, CudaClock)
    steps = timer.steps([None])
    next(steps)
    with timer.span("forward"):
        torch.cuda._sleep(100_000_000)  # cycles; the call returns at once
    with timer.span("backward"):
        pass
    taken = timer.end_step()
    assert taken["forward_seconds"] > 10 * taken["backward_seconds"]
