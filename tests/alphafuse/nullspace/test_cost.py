"""The cost model prefers what anyone would prefer in clear cases."""

from __future__ import annotations

import dataclasses

import pytest

from alphafuse.nullspace.cost import Problem, cheaper_method, gram_seconds, randomized_seconds

SMALL = Problem(
    num_items=100_000, dim=384, num_directions=128, oversampling=16, power_passes=2, partials=2, workers=2, cpus=1
)


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, "gram"),
        ({"num_items": 10_000_000, "partials": 200, "workers": 16}, "gram"),
        ({"dim": 3072, "num_directions": 3072}, "gram"),
        ({"dim": 8192, "num_items": 50_000, "partials": 1}, "randomized"),
        ({"dim": 8192, "num_items": 10_000_000, "partials": 200, "workers": 32}, "randomized"),
    ],
)
def test_method(changes, method):
    assert cheaper_method(dataclasses.replace(SMALL, **changes)) == method


@pytest.mark.parametrize("seconds", [gram_seconds, randomized_seconds])
def test_more_workers_help_until_there_are_no_more_shards(seconds):
    problem = dataclasses.replace(SMALL, num_items=10_000_000, partials=8)

    times = [seconds(dataclasses.replace(problem, workers=workers)) for workers in (1, 4, 8, 16)]

    assert times[0] > times[1] > times[2] == times[3]


def test_more_power_passes_cost_more():
    more = dataclasses.replace(SMALL, power_passes=3)

    assert randomized_seconds(more) > randomized_seconds(SMALL)
    assert gram_seconds(more) == gram_seconds(SMALL)
