"""Answers that are asked for in portions: their order, and how large each may be."""

from __future__ import annotations

from services.queue.sizes import BYTES_AT_ONCE, portions

HALF = BYTES_AT_ONCE // 2


def test_as_many_names_as_fit_are_in_one_portion() -> None:
    sizes = [("a", HALF), ("b", HALF), ("c", 1), ("d", HALF), ("e", HALF)]
    assert list(portions(sizes)) == [["a", "b"], ["c", "d"], ["e"]]


def test_what_is_larger_than_a_portion_is_one_of_its_own() -> None:
    assert list(portions([("a", 1), ("b", 3 * HALF), ("c", 1)])) == [["a"], ["b"], ["c"]]


def test_of_nothing_there_is_no_portion() -> None:
    assert list(portions([])) == []
