"""What a runner asks the queue for."""

from __future__ import annotations

import pytest

from runner_node import shares
from runner_node.shares import SHORT_WAIT, WAIT, Holding


def ask(
    room: int, held: dict[str, int] | None = None, *, alone: bool = False, caps: dict[str, int] | None = None
):
    caps = caps or {}
    holding = {fn: Holding(calls, caps.get(fn, 0)) for fn, calls in (held or {}).items()}
    return shares.ask(room, holding, alone=alone, most=32)


def test_a_runner_with_room_asks_once_and_waits():
    wanted = ask(100, {"a": 3, "b": 1})
    assert (wanted.limit, wanted.wait, wanted.without) == (32, WAIT, frozenset())


def test_an_empty_runner_does_not_fill_itself_with_one_answer():
    assert ask(8).limit == 4
    assert ask(1).limit == 1


def test_a_function_with_half_of_the_places_is_passed_over_at_first():
    wanted = ask(4, {"a": 4})
    assert wanted.glance
    assert wanted.without == {"a"}
    assert wanted.limit == 4


def test_who_else_has_places_gets_no_more_than_half_either():
    assert ask(3, {"a": 4, "b": 2}).limit == 2  # of 9 places 4 each


def test_below_its_half_a_function_is_not_passed_over_and_cannot_leap_beyond_it():
    wanted = ask(5, {"a": 3})
    assert (wanted.glance, wanted.without, wanted.limit) == (False, frozenset(), 1)


def test_a_function_that_is_alone_may_have_all():
    wanted = ask(4, {"a": 12}, alone=True)
    assert (wanted.limit, wanted.wait, wanted.without) == (4, WAIT, frozenset())


@pytest.mark.parametrize("alone", [True, False])
def test_a_function_with_all_that_it_may_have_is_passed_over_whoever_waits(alone):
    wanted = ask(20, {"a": 2, "b": 1}, alone=alone, caps={"a": 2, "b": 2})
    assert (wanted.without, wanted.full, wanted.wait) == ({"a"}, {"a"}, SHORT_WAIT)


def test_a_full_function_is_passed_over_before_one_that_has_its_half():
    wanted = ask(1, {"a": 1, "b": 3}, caps={"a": 1})
    assert wanted.glance
    assert (wanted.without, wanted.full) == ({"a", "b"}, {"a"})


def test_routes_are_never_passed_over():
    wanted = ask(1, {"": 9})
    assert (wanted.limit, wanted.wait, wanted.without) == (1, WAIT, frozenset())


def test_no_request_passes_over_more_functions_than_it_may():
    held = {f"f{number}": 1 for number in range(300)}
    assert len(ask(10, held, caps=dict.fromkeys(held, 1)).without) == shares.MOST_WITHOUT


@pytest.mark.parametrize("places", range(1, 12))
def test_whoever_comes_first_others_find_a_place(places):
    """One function floods the runner while another has calls, too: both have their share."""
    held = {"flood": 0, "other": 0}
    for _ in range(100):
        room = places - sum(held.values())
        if not room:
            break
        wanted = ask(room, held)
        takers = [fn for fn in ("flood", "other") if fn not in wanted.without]
        if takers:
            held[takers[0]] += wanted.limit
    assert sum(held.values()) >= places - 1  # an odd one goes to whoever asks when nobody else does
    if places > 1:
        assert abs(held["flood"] - held["other"]) <= 1


@pytest.mark.parametrize(
    ("limit", "waiting", "later"),
    [
        (1, 300, True),
        (31, 300, True),
        (32, 300, False),
        (9, 20, True),
        (20, 20, False),
        (1, 9, True),
        (1, shares.FEW, False),
        (1, 0, False),
    ],
)
def test_a_backlog_is_pulled_by_the_dozen_although_its_calls_end_one_by_one(limit, waiting, later):
    assert shares.too_little(limit, waiting, most=32) is later
