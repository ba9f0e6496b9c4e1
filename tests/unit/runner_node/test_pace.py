"""What is learned of a function: how fast it is, who waited, and what more containers brought."""

from __future__ import annotations

import math

import pytest

from runner_node.demand import wants_container
from runner_node.pace import Pace, Paces
from runner_node.trial import FIRST_PAUSE, SPAN, SURE, UNPROVEN, Trial

CORES = 2
FIRST_LIMIT = UNPROVEN * CORES


def end_calls(trial: Trial, containers: int, seconds: float, *, starting: int = 0, now: float = 0.0) -> None:
    """As many, and for as long, as any judgement takes."""
    enough = max(10 * containers + 30, math.ceil(2 * SURE * SPAN * containers / seconds))
    for number in range(enough):
        trial.saw(seconds, containers, starting=starting, now=now + number * seconds / containers)


def limit_of(pace: Pace, containers: int, now: float = 0.0) -> float:
    return pace.demand(now, waiting=9, starting=0, containers=containers, since=now).limit


# -- trials ------------------------------------------------------------------------------------


def test_two_containers_per_core_are_started_before_it_is_known_what_they_bring() -> None:
    assert [Trial(cores).limit(0.0) for cores in (1, 2, 16)] == [2, 4, 32]


def test_containers_that_serve_more_calls_allow_twice_as_many_again_and_again() -> None:
    trial, limits = Trial(CORES), []
    for containers in (4, 8, 16, 32):
        end_calls(trial, containers, 0.01)
        limits.append(trial.limit(0.0))
    assert limits == [8, 16, 32, 64]


def test_containers_on_the_same_cores_end_the_growth_and_are_given_back() -> None:
    trial = Trial(CORES)
    end_calls(trial, 4, 0.002)
    assert trial.limit(0.0) == 8
    end_calls(trial, 8, 0.004)
    assert trial.limit(0.0) == 4
    assert [trial.surplus(containers) for containers in (8, 5, 4, 1)] == [True, True, False, False]


def test_what_brought_nothing_is_tried_again_after_a_pause_that_doubles() -> None:
    trial, now, pauses = Trial(CORES), 0.0, []
    end_calls(trial, 4, 0.002)
    for _ in range(4):
        end_calls(trial, 8, 0.004, now=now)
        began = now
        while trial.limit(now) == 4:
            now += 1.0
        pauses.append(now - began)
        assert trial.doubtful
    # To a second: each begins with the judgement, a moment after these calls.
    assert pauses == pytest.approx([times * FIRST_PAUSE for times in (1, 2, 4, 8)], abs=1.0)
    end_calls(trial, 8, 0.002, now=now)
    assert trial.limit(now) == 16
    assert not trial.doubtful


def test_what_is_slow_because_others_start_is_not_held_against_it() -> None:
    trial = Trial(CORES)
    end_calls(trial, 4, 0.002)
    end_calls(trial, 8, 0.004, starting=1)
    assert trial.limit(0.0) == 8
    assert not trial.surplus(8)


def test_what_is_fast_although_others_start_is_believed_but_nothing_is_built_on_it() -> None:
    trial = Trial(CORES)
    end_calls(trial, 4, 0.002)
    end_calls(trial, 8, 0.0027, starting=1)  # 1.5 times as many calls
    assert trial.limit(0.0) == 16
    end_calls(trial, 16, 0.004)  # no more than 4 containers could have served without each other
    assert trial.limit(0.0) == 8


@pytest.mark.parametrize("spread", [0.2, 1.0, 1.9])
def test_calls_that_vary_are_judged_by_more_of_them(spread: float) -> None:
    def calls_until_judged() -> int:
        trial, number = Trial(CORES), 0
        while not trial.proven:
            number += 1
            trial.saw(0.01 * (1 + spread * (-1) ** number), 4, starting=0, now=number)
        return number

    assert calls_until_judged() >= 4 + 60 * spread**2 * 0.8


@pytest.mark.parametrize(("containers", "seconds", "spans"), [(4, 0.0004, 1), (8, 0.0008, SURE)])
def test_short_calls_are_judged_by_a_span_of_time(containers: int, seconds: float, spans: int) -> None:
    """However many there were: what 8 containers bring no more than 4 is only believed after a longer one."""
    trial = Trial(CORES)
    if containers > 4:
        end_calls(trial, 4, 0.0004)
    before, number = trial.limit(0.0), 0
    while trial.limit(0.0) == before:
        number += 1
        trial.saw(seconds, containers, starting=0, now=number * 0.0001)
        assert number < 1_000_000
    assert number * 0.0001 == pytest.approx(spans * SPAN, rel=0.05)


def test_calls_that_began_with_fewer_containers_say_nothing_of_more() -> None:
    trial = Trial(CORES)
    end_calls(trial, 4, 0.002)
    for _ in range(8):
        trial.saw(9.0, 8, starting=0, now=0.0)
    end_calls(trial, 8, 0.002)
    assert trial.limit(0.0) == 16


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "start", "limited"),
    [(0.0003, 0.15, True), (0.03, 0.15, True), (0.04, 0.15, False), (1.0, 0.15, False), (1.0, 5.0, True)],
)
def test_calls_that_are_short_against_a_start_have_a_limit(
    service: float, start: float, limited: bool
) -> None:
    pace = Pace(CORES)
    pace.saw_start(start, 0.0, first=True)
    assert limit_of(pace, 1) == FIRST_LIMIT  # nothing is known
    pace.saw_service(service, 1, crowded=True, starting=0)
    assert limit_of(pace, 1) == (FIRST_LIMIT if limited else math.inf)


def test_calls_that_are_long_only_since_there_are_many_containers_stay_short() -> None:
    pace = Pace(CORES)
    pace.saw_start(0.15, 0.0, first=True)
    pace.saw_service(0.03, 1, crowded=True, starting=0)
    for _ in range(50):
        pace.saw_service(0.06, 4, crowded=True, starting=0)
    assert limit_of(pace, 4) < math.inf


def test_long_calls_that_become_much_longer_start_no_more() -> None:
    pace = Pace(CORES)
    pace.saw_start(0.15, 0.0, first=True)
    pace.saw_service(0.3, 1, crowded=True, starting=0)
    for _ in range(30):
        pace.saw_service(0.6, 4, crowded=True, starting=4)
    assert limit_of(pace, 4) == math.inf
    for _ in range(30):
        pace.saw_service(2.0, 12, crowded=True, starting=4)
    assert limit_of(pace, 12) == 12


# -- waiting -----------------------------------------------------------------------------------


def waited(callers: float, seconds: float, start: float = 0.15) -> bool:
    """Whether one more is wanted for short calls, after *callers* have waited at any time for so long."""
    pace, now = Pace(CORES), 0.0
    pace.saw_start(start, now, first=True)
    pace.saw_service(0.0003, 1, crowded=False, starting=0)
    wanted = False
    while now < seconds:
        now += 0.01
        for _ in range(math.ceil(callers)):
            pace.saw_wait(now - 0.01 * callers / math.ceil(callers), now)
        wanted = wanted or wants_container(pace.demand(now, waiting=1, starting=0, containers=1, since=now))
    return wanted


@pytest.mark.parametrize(
    ("callers", "seconds", "wanted"),
    [(63, 0.02, True), (4, 0.05, False), (4, 0.15, True), (0.4, 60.0, False)],
)
def test_one_more_is_worth_it_when_calls_have_waited_for_two_starts_together(
    callers: float, seconds: float, wanted: bool
) -> None:
    assert waited(callers, seconds) is wanted


def test_what_was_waited_for_is_paid_by_a_start_and_forgotten_in_quiet_times() -> None:
    pace = Pace(CORES)
    pace.saw_start(0.15, 0.0, first=True)
    for _ in range(100):
        pace.saw_wait(0.0, 0.1)
    pace.demand(0.1, waiting=1, starting=0, containers=1, since=0.1)
    assert pace.debt > 0.3
    pace.demand(4.0, waiting=1, starting=0, containers=1, since=4.0)
    assert pace.debt == 0.0
    pace.saw_wait(4.0, 5.0)
    pace.began_start()
    assert pace.debt == 0.0


def test_waiting_for_the_first_container_asks_for_no_second_one() -> None:
    pace = Pace(CORES)
    pace.saw_start(5.0, 5.0, first=True)
    pace.saw_wait(0.0, 5.0)
    demand = pace.demand(5.0, waiting=1, starting=0, containers=1, since=0.0)
    assert (demand.oldest_wait, demand.debt) == (0.0, 0.0)
    assert not wants_container(demand)


def test_the_first_start_replaces_the_guess_and_later_ones_are_averaged() -> None:
    pace = Pace(CORES)
    pace.saw_start(0.1, 0.1, first=True)
    assert pace.start_time == 0.1
    pace.saw_start(0.2, 0.3, first=False)
    assert pace.start_time == pytest.approx(0.12)


def test_what_is_known_of_a_function_outlives_its_containers_but_not_a_thousand_others() -> None:
    paces = Paces(CORES)
    pace = paces.take(b"f")
    paces.keep(b"f", pace)
    assert paces.take(b"f") is not pace  # nothing was known
    pace.saw_service(1.0, 1, crowded=False, starting=0)
    paces.keep(b"f", pace)
    assert paces.take(b"f") is pace
    paces.keep(b"f", pace)
    for number in range(1000):
        other = Pace(CORES)
        other.saw_service(1.0, 1, crowded=False, starting=0)
        paces.keep(str(number).encode(), other)
    assert paces.take(b"f") is not pace
