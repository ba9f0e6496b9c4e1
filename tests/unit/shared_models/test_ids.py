"""Ids: the text form of Fn, order, uniqueness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_models import ids

VECTORS = json.loads((Path(__file__).parents[2] / "wire/scenarios/vectors/ids.json").read_text())
NUMBERS = st.integers(0, 2**128 - 1)


@pytest.mark.parametrize("vector", VECTORS["ids"], ids=lambda one: one["text"])
def test_text_forms_are_those_of_fn(vector: dict) -> None:
    value = int(vector["bytes"], 16)
    assert ids.to_text(value) == vector["text"]
    assert ids.descending(vector["text"]) == vector["descending"]
    assert ids.is_id(vector["text"])
    assert ids.time_of(vector["text"]) == vector["ms"] / 1000
    maker = ids.IdMaker(machine=value >> 32 & (2**48 - 1), clock=lambda: vector["ms"] / 1000)
    made = [maker() for _ in range(vector["counter"])]
    assert made[-1][-7:] == vector["text"][-7:]


@pytest.mark.parametrize("vector", VECTORS["descending"], ids=lambda one: one["in"] or "empty")
def test_descending_forms_are_those_of_fn(vector: dict) -> None:
    assert ids.descending(vector["in"]) == vector["out"]


@given(NUMBERS, NUMBERS)
def test_texts_sort_as_their_numbers_do_and_mirrored_ones_the_other_way(one: int, other: int) -> None:
    a, b = ids.to_text(one), ids.to_text(other)
    assert (a < b) == (one < other)
    assert (ids.descending(a) > ids.descending(b)) == (one < other)
    assert ids.descending(ids.descending(a)) == a
    assert ids.is_id(a)


def test_ids_of_one_maker_ascend_even_when_the_clock_is_set_back() -> None:
    now = [1000.0]
    maker = ids.IdMaker(machine=1, clock=lambda: now[0])
    made = [maker()]
    for moment in (1000.0, 999.0, 500.0, 1000.001):
        now[0] = moment
        made.append(maker())
    assert made == sorted(set(made))


def test_ids_ascend_when_the_counter_starts_anew() -> None:
    maker = ids.IdMaker(machine=1, clock=lambda: 1000.0)
    maker._count = 0xFFFFFFFE
    made = [maker() for _ in range(4)]
    assert made == sorted(set(made))


def test_makers_do_not_share_ids() -> None:
    one, other = ids.IdMaker(clock=lambda: 1.0), ids.IdMaker(clock=lambda: 1.0)
    assert {one() for _ in range(100)}.isdisjoint({other() for _ in range(100)})


@given(st.integers(0, 2**48 - 1), NUMBERS)
def test_the_first_id_of_a_moment_parts_those_before_it_from_the_rest(millis: int, number: int) -> None:
    bound, one = ids.first_of(millis / 1000), ids.to_text(number)
    assert ids.is_id(bound)
    assert (one >= bound) == (number >> 80 >= millis)
    assert ids.first_of(ids.time_of(one)) <= one


def test_moments_that_no_id_can_have_are_bounds_all_the_same() -> None:
    assert ids.first_of(-62_135_596_800.0) == ids.to_text(0)
    assert ids.first_of(253_402_300_799.999) == ids.to_text(253_402_300_799_999 << 80)
    assert ids.first_of(1e15) == ids.to_text((2**48 - 1) << 80)


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "01CF7P75BV180G40RZJ000000", "01CF7P75BV180G40RZJ00000022", "81CF7P75BV180G40RZJ0000002",
        "01cf7p75bv180g40rzj0000002", "01CF7P75BV180G40RZJ000000I", "01CF7P75BV180G40RZJ000000é",
    ],
)  # fmt: skip
def test_other_text_is_no_id(text: str) -> None:
    assert not ids.is_id(text)
