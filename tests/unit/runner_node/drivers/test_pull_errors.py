"""What an engine says of a pull that failed, in dockerd's words, and how long a registry is left alone."""

from __future__ import annotations

import asyncio

import pytest

from runner_node.drivers.pull_errors import Failure, Overloaded, failure
from tests.unit.runner_node.simulation import now, simulated

BUSY = (
    "toomanyrequests: You have reached your pull rate limit",
    'error parsing HTTP 429 response body: unexpected end of JSON input: ""',
    "received unexpected HTTP status: 503 Service Unavailable",
)


def told(said: str, status: int = 500, *, logged_in: bool = False) -> Failure:
    return failure("reg.example/f", "reg.example", said, status, logged_in=logged_in)


@pytest.mark.parametrize("said", BUSY)
def test_an_overloaded_registry_is_known_by_its_words(said: str) -> None:
    failed = told(said)
    assert (failed.busy, failed.final, failed.code) == (True, True, 503)


def test_a_refusal_says_whether_there_was_a_login() -> None:
    without = told("Head http://reg.example/v2/f/manifests/1: no basic auth credentials")
    assert "asked without a login" in without.message
    assert (without.code, without.final) == (401, True)
    wrong = told("unauthorized: incorrect username or password", logged_in=True)
    assert "did not take the login" in wrong.message
    assert not wrong.busy


def test_what_may_be_bad_luck_is_not_final() -> None:
    failed = told("dial tcp: connection refused")
    assert (failed.final, failed.busy, failed.code) == (False, False, 502)


@simulated
async def test_a_registry_is_left_alone_longer_each_time_and_for_as_long_as_it_asks() -> None:
    registries = Overloaded()

    async def left_alone() -> float:
        begun = now()
        while True:
            try:
                registries.check("reg.example/f", "reg.example")
            except Failure:
                await asyncio.sleep(0.5)
            else:
                return now() - begun

    for expected in (2.0, 4.0, 8.0):
        registries.note("reg.example", told(BUSY[0]))
        registries.check("other.example/f", "other.example")
        assert await left_alone() == pytest.approx(expected, abs=0.6)
    registries.note("reg.example", told("toomanyrequests: retry-after: 5m, allowed: 10/minute"))
    assert await left_alone() == pytest.approx(300.0, abs=0.6)
    registries.note("reg.example", None)
    registries.note("reg.example", told(BUSY[0]))
    assert await left_alone() == pytest.approx(2.0, abs=0.6)


@simulated
async def test_a_registry_cannot_ask_to_be_left_alone_for_more_than_an_hour() -> None:
    registries = Overloaded()
    registries.note("reg.example", told("toomanyrequests: retry-after: 1000h"))
    await asyncio.sleep(3599.0)
    with pytest.raises(Failure):
        registries.check("reg.example/f", "reg.example")
    await asyncio.sleep(2.0)
    registries.check("reg.example/f", "reg.example")
