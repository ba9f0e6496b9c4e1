"""The decision to start one more container, as tables."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runner_node.demand import Demand, next_look, wants_container

NOTHING = {"waiting": 0, "starting": 0, "containers": 0, "service_time": None, "start_time": 0.15}
BUSY = NOTHING | {"waiting": 63, "containers": 1, "service_time": 0.0003}


@pytest.mark.parametrize(
    ("rule", "numbers", "wanted"),
    [
        ("nobody waits", {}, False),
        ("the first call of a function", {"waiting": 1}, True),
        ("one is starting for it", {"waiting": 1, "starting": 1}, False),
        ("what is starting is capacity", {"waiting": 3, "starting": 3, "oldest_wait": 9.0}, False),
        ("nothing is known yet: one at a time", {"waiting": 64, "starting": 1, "oldest_wait": 0.15}, False),
        ("... unless it takes twice as long", {"waiting": 64, "starting": 1, "oldest_wait": 0.3}, True),
        ("not beyond the limit", {"waiting": 64, "starting": 4, "oldest_wait": 9.0, "limit": 4}, False),
        ("calls are known to be long, and none is there",
         {"waiting": 64, "starting": 1, "service_time": 1.0}, True),
        ("calls are known to be short, and none is there",
         {"waiting": 64, "starting": 1, "service_time": 0.0003}, False),
    ],
)  # fmt: skip
def test_without_a_container(rule: str, numbers: dict[str, Any], wanted: bool) -> None:
    assert wants_container(Demand(**NOTHING | numbers)) is wanted, rule


@pytest.mark.parametrize(
    ("rule", "numbers", "wanted"),
    [
        ("the last in line waits 19 ms for it, and 150 ms for a start", {}, False),
        ("the last in line waits 630 ms", {"service_time": 0.01}, True),
        ("... 157 ms", {"service_time": 0.01, "containers": 4}, True),
        ("... 126 ms", {"service_time": 0.01, "containers": 5}, False),
        ("a container that is starting will serve many short calls",
         {"service_time": 0.01, "containers": 1, "starting": 4}, False),
        ("... but of long ones only the one that is not counted any more",
         {"service_time": 1.0, "containers": 1, "starting": 62}, True),
        ("nobody has been served for a start", {"oldest_wait": 0.15, "stuck": 0.15, "limit": 1}, True),
        ("nearly", {"oldest_wait": 0.15, "stuck": 0.149, "limit": 1}, False),
        ("the line moves, and there is a limit", {"oldest_wait": 9.0, "stuck": 0.001, "limit": 1}, False),
        ("the line moves, and there is none", {"oldest_wait": 0.15, "stuck": 0.001}, True),
        ("all have waited a little, for two starts together", {"debt": 0.3}, True),
        ("... not yet", {"debt": 0.29}, False),
        ("... but more would bring nothing", {"debt": 9.0, "limit": 1}, False),
        ("... what is starting counts", {"debt": 9.0, "starting": 1, "limit": 2}, False),
        ("long calls, and more would bring nothing", {"service_time": 1.0, "limit": 1}, False),
        ("one caller, whom what is starting will serve",
         {"waiting": 1, "starting": 1, "oldest_wait": 9.0, "stuck": 9.0}, False),
        ("no call has ended: the first runs for 2 ms", {"service_time": None, "stuck": 0.002}, False),
        ("... for 3 ms", {"service_time": None, "stuck": 0.003}, True),
        ("... for 3 ms, and two call only", {"service_time": None, "stuck": 0.003, "waiting": 1}, False),
    ],
)  # fmt: skip
def test_beside_containers_at_work(rule: str, numbers: dict[str, Any], wanted: bool) -> None:
    assert wants_container(Demand(**BUSY | numbers)) is wanted, rule


@pytest.mark.parametrize(
    "numbers",
    [
        {"oldest_wait": 0.02},
        {"oldest_wait": 0.1, "stuck": 0.01},
        {"oldest_wait": 9.0, "stuck": 0.01, "limit": 1},
        {"service_time": None, "stuck": 0.0001, "limit": 4},
        {"service_time": None, "waiting": 1, "oldest_wait": 0.02, "stuck": 0.02},
        {"containers": 0, "starting": 1, "oldest_wait": 0.1},
    ],
)
def test_the_next_look_is_when_time_changes_the_answer(numbers: dict[str, Any]) -> None:
    def later(seconds: float) -> Demand:
        found = BUSY | {"oldest_wait": 0.0, "stuck": 0.0} | numbers
        return Demand(
            **found
            | {"oldest_wait": found["oldest_wait"] + seconds, "stuck": found["stuck"] + seconds}
        )  # fmt: skip

    pause = next_look(later(0.0))
    assert pause is not None
    assert not wants_container(later(0.0))
    assert not wants_container(later(pause * 0.99))
    assert wants_container(later(pause * 1.001))


@pytest.mark.parametrize(
    "numbers",
    [
        {"waiting": 0},
        {"waiting": 1, "starting": 1},
        {"containers": 0, "starting": 4, "limit": 4},
    ],
)
def test_no_look_is_due_when_time_changes_nothing(numbers: dict[str, Any]) -> None:
    assert next_look(Demand(**BUSY | numbers)) is None


@pytest.mark.parametrize("service_time", [0.0003, 0.01, 1.0, None])
@pytest.mark.parametrize("containers", [0, 1, 8])
@pytest.mark.parametrize("limit", [4, math.inf])
def test_starting_one_more_ends_at_the_number_of_those_who_wait(
    service_time: float | None, containers: int, limit: float
) -> None:
    numbers = {
        "service_time": service_time,
        "containers": containers,
        "limit": limit,
        "stuck": 1.0,
        "oldest_wait": 1.0,
    }
    starting = 0
    while wants_container(Demand(**BUSY | numbers | {"starting": starting})):
        starting += 1
    assert starting <= 63
