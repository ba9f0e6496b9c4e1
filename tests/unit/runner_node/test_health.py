"""Readiness: the engine, the API node's word, and the stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runner_node.drivers.fake import FakeDriver, open_fake
from runner_node.health import Health
from runner_node.resources import Resources
from runner_node.scheduler import Scheduler
from runner_node.settings import AgentSettings
from shared_models.background import beside
from shared_models.runner import RunnerState
from tests.unit.runner_node.scripted_data import ScriptedData


@pytest.fixture
def data() -> ScriptedData:
    return ScriptedData()


@pytest.fixture
async def driver() -> AsyncIterator[FakeDriver]:
    async with open_fake({}) as driver:
        yield driver


@pytest.fixture
async def health(data, driver) -> Health:
    resources = Resources(1 << 30, 1000)
    scheduler = Scheduler(driver, AgentSettings(), resources, "node")
    health = Health(data, driver, scheduler, resources, "node", "here", "1")
    await health._look_at_engine()
    return health


async def test_a_node_that_is_told_to_drain_is_not_ready_until_it_is_active_again(health, data):
    await health._report()
    assert (health.reason, health.drains) == ("", False)
    data.state = RunnerState.DRAINING
    change = health.changes.next
    await health._report()
    assert (health.reason, health.drains, health.stops) == ("the node is draining", True, False)
    assert change.is_set()
    data.state = RunnerState.ACTIVE
    change = health.changes.next
    await health._report()
    assert (health.reason, health.drains) == ("", False)
    assert change.is_set()


async def test_while_the_api_node_is_away_its_last_word_holds(health, data):
    data.state = RunnerState.DRAINING
    await health._report()
    data.away = True
    await health._report()
    assert health.drains


async def test_nothing_is_told_while_nothing_changes(health):
    await health._report()
    change = health.changes.next
    await health._report()
    await health._look_at_engine()
    assert not change.is_set()


async def test_an_engine_that_goes_and_comes_is_told(health, driver):
    for down in ("gone", ""):
        change = health.changes.next
        driver.down = down
        await health._look_at_engine()
        assert change.is_set()
        assert down in health.reason


async def test_the_log_says_ready_once_each_time_that_the_node_has_become_so(health, data, driver, caplog):
    caplog.set_level("INFO", "runner_node.health")

    async def look() -> list[str]:
        caplog.clear()
        await health._look_at_engine()
        await health._report()
        return [record.getMessage() for record in caplog.records if "ready for calls" in record.message]

    data.away = True
    assert await look() == []
    data.away = False
    assert await look() == ["ready for calls"]
    assert await look() == []
    data.state = RunnerState.DRAINING
    assert await look() == []
    data.state = RunnerState.ACTIVE
    assert await look() == ["ready for calls"]
    driver.down = "gone"
    assert await look() == []
    driver.down = ""
    assert await look() == ["ready for calls"]


async def test_an_api_node_that_starts_beside_the_runner_is_not_asked_late(health, data, monkeypatch):
    monkeypatch.setattr("runner_node.health.HEARTBEAT", 3600.0)
    monkeypatch.setattr("runner_node.health.BEGIN", 0.01)
    data.away = True
    async with asyncio.timeout(30), beside(health.run(), "look"):
        while "does not answer" not in health.reason:
            await health.changes.next.wait()
        data.away = False
        while health.reason:
            await health.changes.next.wait()


async def test_the_stop_is_told_once_and_is_for_ever(health):
    change = health.changes.next
    health.stopping()
    assert change.is_set()
    assert (health.reason, health.drains, health.stops) == ("the node is stopping", True, True)
    change = health.changes.next
    health.stopping()
    assert not change.is_set()


async def test_a_runner_that_has_not_been_heard_yet_is_not_ready(health):
    assert health.reason == "no API node has answered yet"
    await health._report()
    assert health.reason == ""


async def test_a_runner_whom_no_api_node_has_answered_yet_is_not_ready_and_says_why(health, data):
    data.away = True
    await health._report()
    assert health.reason.startswith("no API node has answered yet: ")
    data.away = False
    change = health.changes.next
    await health._report()
    assert health.reason == ""
    assert change.is_set()


async def test_while_look_ups_are_served_from_memory_an_api_node_may_be_away(health, data, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("runner_node.health.time.monotonic", lambda: now)
    health._stale = 600.0
    await health._report()
    data.away = True
    now += 600
    await health._report()
    assert health.reason == ""
    now += 1
    await health._report()
    assert "more than FN_CACHE_STALE_SECS=600" in health.reason
    data.away = False
    await health._report()
    assert health.reason == ""


async def test_a_full_spool_is_a_reason_until_there_is_room(health):
    await health._report()
    full = True
    health.spool_full = lambda: full
    assert "the spool is full" in health.reason
    full = False
    assert health.reason == ""
