"""Curves and workers from the events of a training."""

from __future__ import annotations

import numpy as np
import pytest

from alphafuse.events import EpochMetrics, Event, StageStarted, StepMeans, TrainingProgress, WorkersRestarted
from monitoring.run_log.training_curves import POINTS, Curve, training_of


def _progress(step: int, loss: float) -> Event:
    return TrainingProgress("train", step, 90, "steps", epoch=1, loss=loss, time=100.0 + step)


def _epoch(epoch: int, loss: float, **metrics: float) -> Event:
    return EpochMetrics("train", split="validation", epoch=epoch, loss=loss, numbers=metrics, time=100.0 + epoch)


def _worker(rank: int, step: int, time: float | None = None, exchange: float = 0.0, **seconds: float) -> Event:
    return StepMeans(
        "train",
        rank=rank,
        step=step,
        seconds=sum(seconds.values()) + exchange + 0.5,
        exchange_seconds=exchange,
        world_size=2,
        steps=10,
        samples_per_second=1.0,
        memory_bytes=1,
        device_memory_bytes=None,
        host="a",
        time=100.0 + step if time is None else time,
        **{f"{name}_seconds": value for name, value in seconds.items()},
    )


STARTED = StageStarted("train", time=0.0)


def test_a_continued_training_takes_up_where_its_checkpoint_was() -> None:
    events = [STARTED, _progress(10, 5.0), _progress(20, 4.0), _progress(30, 3.0), _epoch(1, loss=4.0)]
    events += [STARTED, _progress(20, 4.5), _progress(40, 2.0), _epoch(2, loss=3.0)]
    training = training_of(events)
    assert training.by_step["loss"].x.tolist() == [10, 20, 40]
    assert training.by_step["loss"].y.tolist() == [5.0, 4.5, 2.0]
    assert training.by_epoch["loss"].x.tolist() == [1, 2]


def test_a_repeated_training_replaces_the_one_before() -> None:
    events = [STARTED, _progress(10, 5.0), _progress(20, 4.0), _epoch(1, loss=4.0), _epoch(2, loss=3.0)]
    training = training_of([*events, STARTED, _progress(10, 9.0), _epoch(1, loss=8.0)])
    assert training.by_step["loss"].y.tolist() == [9.0]
    assert training.by_epoch["loss"].y.tolist() == [8.0]


def test_the_best_validation_and_epochs_without_one() -> None:
    values = {1: 0.1, 2: 0.3, 4: 0.2}
    events = [
        _epoch(epoch, loss=1.0, **({"ndcg@20": values[epoch]} if epoch in values else {})) for epoch in range(1, 5)
    ]
    training = training_of([STARTED, *events])
    assert training.best("ndcg@20") == (2, 0.3)
    assert training.by_epoch["ndcg@20"].x.tolist() == [1, 2, 4]
    assert training.best("hr@10") is None


def test_spans_of_a_step_are_means_over_the_workers_that_reported() -> None:
    """Rank 1 reports at other steps: between them its latest value holds, before and after them it does not count."""
    events = [STARTED, _worker(0, 10, lookup=1.0), _worker(1, 20, lookup=5.0), _worker(0, 20, lookup=3.0)]
    events += [_worker(0, 30, lookup=3.0), _worker(1, 40, lookup=7.0), _worker(0, 50, lookup=2.0)]
    lookup = training_of(events).spans["lookup"]
    assert lookup.x.tolist() == [10, 20, 30, 40, 50]
    assert lookup.y.tolist() == [1.0, (3 + 5) / 2, (3 + 5) / 2, (3 + 7) / 2, 2.0]


def test_the_slowest_span_and_its_share() -> None:
    training = training_of([STARTED, *(_worker(rank, 10, forward=1.0, lookup=2.5) for rank in (0, 1))])
    assert training.spans["rest"].y.tolist() == [0.5]
    assert training.slowest_span() == ("lookup", pytest.approx(2.5 / 4.0))
    assert training_of([STARTED]).slowest_span() is None


def test_a_worker_is_slow_by_its_own_work_and_not_by_waiting() -> None:
    """Both workers take equally long: the fast one waits in exchanges, and while the dense gradients are averaged."""
    events = [STARTED, _worker(0, 10, data=0.5, forward=1.0, backward=5.0, exchange=3.0, optimizer=0.5)]
    events += [_worker(1, 10, data=0.5, forward=6.0, backward=2.0, exchange=0.5, optimizer=1.0)]
    well, slow = training_of(events).workers
    assert (well.busy, slow.busy) == (2.0, 7.5)
    assert well.complaint == ""
    assert slow.complaint == "slow: 3.8 × the others"


def test_a_worker_is_silent_when_the_others_are_not() -> None:
    events = [STARTED]
    for time in range(0, 200, 10):
        events += [_worker(0, time, 1000.0 + time, forward=1.0)]
        events += [_worker(1, time, 1000.0 + time, forward=1.0)] if time < 100 else []
    assert [worker.complaint for worker in training_of(events).workers] == ["", "silent"]
    assert [worker.complaint for worker in training_of(events[:-4]).workers] == [
        "",
        "",
    ]  # not yet silent for 60 seconds


def test_after_a_restart_workers_are_others() -> None:
    again = WorkersRestarted("train", "a worker died", 1, time=200.0)
    training = training_of([STARTED, _worker(0, 10), _worker(1, 10), again, _worker(0, 20, 300.0)])
    assert [worker.rank for worker in training.workers] == [0]
    assert training.restarts == 1
    assert training_of([STARTED, again, STARTED]).restarts == 0


@pytest.mark.parametrize("length", [5, POINTS, POINTS + 1, 100_000])
def test_thinning_keeps_ends_and_spikes(length: int) -> None:
    curve = Curve(np.arange(length, dtype=float), np.random.default_rng(0).random(length))
    curve.y[length // 3], curve.y[length // 2], curve.y[length // 4] = 50.0, -50.0, np.nan
    thin = curve.thinned()
    assert len(thin.x) <= POINTS + 2
    assert {0.0, length - 1.0, float(length // 3), float(length // 2)} <= set(thin.x.tolist())
    assert (np.diff(thin.x) > 0).all()
    np.testing.assert_array_equal(thin.y, curve.y[thin.x.astype(int)])
    if length <= POINTS:
        assert thin is curve
