"""When is one more container worth its start?"""

from __future__ import annotations

import dataclasses

import pytest

from runner_node.demand import Demand, next_look, wants_container

BUSY = Demand(waiting=1, starting=0, containers=1, service_time=0.001, start_time=0.5, oldest_wait=0.0)


def change(**numbers: float | None) -> Demand:
    return dataclasses.replace(BUSY, **numbers)  # type: ignore[arg-type]


def test_the_first_call_of_a_function_gets_a_container():
    assert wants_container(change(containers=0, service_time=None))


def test_nobody_waiting_needs_none():
    assert not wants_container(change(waiting=0))


def test_a_starting_container_is_capacity():
    assert not wants_container(change(containers=0, waiting=1, starting=1, oldest_wait=9))
    assert not wants_container(change(waiting=3, starting=3, oldest_wait=9))


def test_short_calls_wait_for_the_container_at_work():
    # 64 callers of a 0.3 ms function: the last in line waits 19 ms, a start takes half a second.
    assert not wants_container(change(waiting=63, service_time=0.0003))


def test_sixty_four_callers_of_a_short_function_start_few_containers():
    containers, waiting = 1, 63
    while wants_container(change(waiting=waiting, containers=containers, service_time=0.0003)):
        containers += 1
    assert containers == 1


def test_sixty_four_callers_of_a_long_function_start_one_each():
    starting = 0
    while wants_container(change(waiting=63, starting=starting, service_time=1.0, start_time=0.15)):
        starting += 1
    assert starting == 63


def test_a_call_that_waited_as_long_as_a_start_takes_gets_one_regardless():
    assert not wants_container(change(service_time=None, oldest_wait=0.49))
    assert wants_container(change(service_time=None, oldest_wait=0.5))


@pytest.mark.parametrize("waited", [0.0, 0.2, 0.499])
def test_the_next_look_is_when_the_answer_may_change(waited):
    demand = change(service_time=None, oldest_wait=waited)
    delay = next_look(demand)
    assert delay is not None
    assert wants_container(dataclasses.replace(demand, oldest_wait=waited + delay))


def test_no_look_is_due_when_all_are_served():
    assert next_look(change(waiting=1, starting=1)) is None
