"""The knowledge that replicas share: turns, refused models, and one page of metrics."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.serving import fleet
from jobs.serving.fleet import Fleet
from jobs.serving.model_source import Location
from monitoring.metrics.serving_recorder import ServingRecorder

MODEL, NEXT, OTHER = (Location(f"v000{number}", "somewhere", "a" * 64) for number in (1, 2, 3))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(fleet.time, "monotonic", lambda: now[0])
    return now


def test_one_replica_loads_at_a_time(clock: list[float]) -> None:
    shared = Fleet()
    for replica in ("one", "two"):
        shared.report(replica, [], MODEL)
    assert shared.take_turn("one", NEXT)
    assert not shared.take_turn("two", NEXT)
    assert shared.take_turn("one", NEXT)
    shared.end_turn("one", NEXT, refused=False)
    assert shared.take_turn("two", NEXT)


def test_the_turn_of_a_replica_that_has_died_is_over(clock: list[float]) -> None:
    shared = Fleet()
    shared.report("one", [], MODEL)
    assert shared.take_turn("one", NEXT)
    clock[0] += fleet.GONE_SECONDS
    assert shared.take_turn("two", NEXT)


def test_a_refused_model_is_tried_again_after_a_while(clock: list[float]) -> None:
    shared = Fleet()
    assert shared.take_turn("one", NEXT)
    shared.end_turn("one", NEXT, refused=True)
    assert not shared.take_turn("two", NEXT)
    assert shared.take_turn("two", OTHER)
    shared.end_turn("two", OTHER, refused=False)
    clock[0] += fleet.AGAIN_SECONDS
    assert shared.take_turn("two", NEXT)


def test_the_page_has_the_metrics_of_every_living_replica(clock: list[float]) -> None:
    shared, recorders = Fleet(), {"one": ServingRecorder(), "two": ServingRecorder(), "gone": ServingRecorder()}
    recorders["one"].on_request("recommend", 200, 0.004)
    recorders["one"].on_request("recommend", 401, 0.001)
    recorders["two"].on_batch(0.02, asked=9, unknown=2)
    for version in ("v0001", "v0002"):
        recorders["two"].on_model(version, 30)
    recorders["two"].on_reload("refused")
    shared.report("gone", recorders["gone"].families(), MODEL)
    clock[0] += fleet.GONE_SECONDS
    for replica in ("one", "two"):
        shared.report(replica, recorders[replica].families(), MODEL)
    families = list(text_string_to_metric_families(shared.page().decode()))
    assert len({family.name for family in families}) == len(families)
    found = {
        (
            sample.name.removeprefix("alphafuse_serve_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in families
        for sample in family.samples
    }
    assert {sample.labels["replica"] for family in families for sample in family.samples} == {"one", "two"}
    assert found["requests_total", "200", "recommend", "one"] == 1
    assert found["requests_total", "401", "recommend", "one"] == 1
    assert found["requests_total", "200", "recommend", "two"] == 0
    assert found["unknown_items_total", "two"] == 2
    assert found["model_items", "two"] == 30
    assert found["reloads_total", "refused", "two"] == 1
    assert ("model_loaded_timestamp_seconds", "one", "v0001") not in found
    assert [labels for labels in found if labels[0] == "model_loaded_timestamp_seconds"] == [
        ("model_loaded_timestamp_seconds", "two", "v0002")
    ]
    assert ("process_cpu_seconds_total", "one") in found
    assert shared.served() == MODEL
