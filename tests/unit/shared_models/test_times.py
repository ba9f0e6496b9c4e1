"""Times: wire text and back."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_models import times

VECTORS = json.loads((Path(__file__).parents[2] / "wire/scenarios/vectors/times.json").read_text())["cases"]
MILLIS = st.integers(0, 4102444800000)


@pytest.mark.parametrize("vector", [one for one in VECTORS if one["in"]], ids=lambda one: one["in"])
def test_a_time_is_read_as_fn_reads_it_and_kept_in_utc(vector: dict) -> None:
    if vector.get("error"):
        with pytest.raises(ValueError, match=r"time|must be in"):
            times.normalise(vector["in"])
        return
    read = times.normalise(vector["in"])
    assert datetime.fromisoformat(read) == datetime.fromisoformat(vector["out"])
    assert read.endswith("Z")
    assert len(read) == 24


@pytest.mark.parametrize("text", ["", "now", "2018-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ, and come from the standard library too
        times.normalise(text)


@given(MILLIS, MILLIS)
def test_texts_sort_as_their_times_do(one: int, other: int) -> None:
    a, b = times.to_text(one / 1000), times.to_text(other / 1000)
    assert (a < b) <= (one < other)
    assert abs(times.seconds_of(a) - one / 1000) <= 0.0011
    assert times.normalise(a) == a


def test_a_deadline_has_no_fraction() -> None:
    assert times.deadline_text(1528193700.9) == "2018-06-05T10:15:00Z"


def test_the_present_lies_after_never() -> None:
    assert times.now() > times.NEVER
    assert times.normalise(times.NEVER) == times.NEVER
