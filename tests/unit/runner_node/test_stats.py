"""Samples of a container, thinned as the original thins them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner_node.stats import MOST, decimated
from shared_models import times
from shared_models.call import Stat

VECTORS = Path(__file__).parents[2] / "wire" / "scenarios" / "vectors" / "decimate.json"
START = times.seconds_of("2018-06-26T08:00:00.000Z")


def series(count: int, step: float = 1.0) -> list[Stat]:
    return [
        Stat(timestamp=times.to_text(START + i * step + 0.0001), metrics={"a": i, "b": i * i})
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "case", json.loads(VECTORS.read_text())["cases"], ids=lambda c: f"{c['samples']} to {c['max']}"
)
def test_samples_are_thinned_as_recorded(case):
    out = decimated(series(case["samples"], case["step_ms"] / 1000), case["max"])
    assert [{"timestamp": one.timestamp, "metrics": one.metrics} for one in out] == case["out"]


def test_a_record_never_has_more_than_its_points():
    assert len(decimated(series(10 * MOST + 7))) <= MOST


def test_samples_of_one_moment_are_one_point():
    assert len(decimated([series(1)[0]] * (MOST + 1))) == 1
