"""Which container serves which call, on the clock that jumps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runner_node.container_states import State
from runner_node.hot_container import HotContainer
from tests.unit.runner_node.simulation import CORES, EJECT, Node, now, simulated

START = 0.15
SHORT = 0.0003


async def take(node: Node, target: Any, **more: Any) -> HotContainer:
    return await node.scheduler.acquire(target, sync=True, patience=100, **more)


def give(node: Node, container: HotContainer, seconds: float = 0.1) -> None:
    node.scheduler.release(container, seconds, keep=True)


async def several(node: Node, target: Any, number: int) -> list[HotContainer]:
    """So many containers that are at work."""
    return list(await asyncio.gather(*(take(node, target) for _ in range(number))))


# -- who is next -------------------------------------------------------------------------------


@simulated
async def test_idle_containers_are_taken_last_in_first_out() -> None:
    node = Node(16)
    f = node.target("f")
    one, two, three = await several(node, f, 3)
    for container in (two, three, one):
        give(node, container)
    assert [await take(node, f) for _ in range(3)] == [one, three, two]
    await node.close()


@simulated
async def test_waiting_calls_are_served_first_in_first_out_be_they_sync_or_not() -> None:
    node = Node(1)
    f, order = node.target("f"), []

    async def call(number: int, *, sync: bool) -> None:
        await node.call(f, 0.01, sync=sync)
        order.append(number)

    for number in range(12):
        node.begin(call(number, sync=number % 3 > 0))
    await asyncio.sleep(5)
    assert order == list(range(12))
    await node.close()


@simulated
async def test_a_container_that_becomes_free_goes_to_the_line_and_not_to_whoever_comes_then() -> None:
    node = Node(1)
    f = node.target("f")
    container = await take(node, f)
    first = node.begin(take(node, f))
    await asyncio.sleep(0)
    give(node, container)
    second = node.begin(take(node, f))
    assert await first is container
    assert not second.done()
    give(node, container)
    assert await second is container
    await node.close()


# -- idle, frozen, gone ------------------------------------------------------------------------


@simulated
async def test_those_that_are_not_needed_any_more_are_frozen_and_end_while_the_last_one_goes_on() -> None:
    node = Node(16, freeze_idle=1.0)
    f = node.target("f", idle_timeout=10.0)
    containers = await several(node, f, 3)
    for container in containers:
        give(node, container)
    for _ in range(25):
        assert await node.call(f, 0.1) == 0.0
        await asyncio.sleep(0.4)
    states = [container.state for container in containers]
    assert states == [State.GONE, State.GONE, State.IDLE]
    assert len(node.driver.starts["f"]) == 3
    await node.close()


@simulated
async def test_a_frozen_container_is_woken_rather_than_another_one_started() -> None:
    node = Node(16, freeze_idle=1.0)
    f = node.target("f")
    container = await take(node, f)
    give(node, container)
    await asyncio.sleep(5)
    assert container.state is State.FROZEN
    began = now()
    assert await take(node, f) is container
    assert now() - began < 0.001
    assert len(node.driver.starts["f"]) == 1
    await node.close()


@simulated
async def test_the_longest_idle_container_of_another_function_makes_way_frozen_or_not() -> None:
    node = Node(2, freeze_idle=0.2, fair_share_reserve=0.0)
    old, young, new = node.target("old"), node.target("young"), node.target("new")
    await node.call(old, 0.1)
    await asyncio.sleep(EJECT / 2)
    await node.call(young, 0.1)
    await asyncio.sleep(EJECT)
    assert await node.call(new, 0.1) < 2 * EJECT
    assert (node.driver.alive["old"], node.driver.alive["young"]) == (0, 1)
    await node.close()


@simulated
async def test_an_async_call_has_idle_containers_of_others_make_way() -> None:
    node = Node(10)
    for number in range(9):
        await node.call(node.target(f"warm{number}"), 0.1)
    assert await node.call(node.target("async"), 0.1, sync=False) < 3 * EJECT
    await node.close()


# -- how many ----------------------------------------------------------------------------------


@simulated
async def test_what_is_starting_is_for_those_who_wait_already() -> None:
    node = Node(16, start_time=START)
    f = node.target("f")
    await node.call(f, SHORT)
    for container in list(node.scheduler._queues[f.key].containers):
        container.retire()
    assert await asyncio.gather(*(node.call(f, SHORT) for _ in range(4))) == [
        pytest.approx(START + number * SHORT, abs=0.001) for number in range(4)
    ]
    assert len(node.driver.starts["f"]) == 2
    await node.close()


async def compute(node: Node, target: Any, cores: asyncio.Semaphore, seconds: float) -> None:
    """Calls for ever, each of which needs a core."""
    while True:
        container = await take(node, target)
        began = now()
        async with cores:
            await asyncio.sleep(seconds)
        give(node, container, now() - began)
        node.served[target.fn_id] += 1


@simulated
async def test_sixty_four_callers_of_a_short_function_have_four_containers_per_core_at_most() -> None:
    node, cores = Node(64, start_time=START, fair_share_reserve=0.0), asyncio.Semaphore(CORES)
    f = node.target("f")
    for _ in range(64):
        node.begin(compute(node, f, cores, SHORT))
    await asyncio.sleep(1.0)
    before = node.served["f"]
    await asyncio.sleep(0.5)
    assert node.served["f"] - before > 0.5 * 0.9 * CORES / SHORT
    assert node.driver.most["f"] <= 4 * CORES
    await node.close()


@simulated
async def test_containers_that_wait_for_the_same_database_are_given_back() -> None:
    node, connections = Node(64, start_time=START), asyncio.Semaphore(12)
    f = node.target("f")
    for _ in range(64):
        node.begin(compute(node, f, connections, 0.003))
    while node.driver.most["f"] < 32:
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    assert node.driver.most["f"] == 32
    assert node.driver.alive["f"] == 16
    await node.close()


@simulated
async def test_sixty_four_callers_of_a_long_function_get_all_that_fit_and_the_first_wait_for_one_start() -> (
    None
):
    node = Node(48, start_time=START, fair_share_reserve=0.0)
    f = node.target("f")
    node.press(f, 64, 1.0)
    await asyncio.sleep(8)
    assert node.driver.alive["f"] == 48
    waits = node.waits["f"]
    assert waits[0] == pytest.approx(START)
    assert max(waits[:5]) < 4 * START
    await node.close()


@simulated
async def test_a_call_that_waits_for_a_stuck_container_as_long_as_a_start_takes_gets_another() -> None:
    node = Node(16, start_time=START)
    f = node.target("f")
    for _ in range(10):
        await node.call(f, SHORT)
    node.begin(node.call(f, 1000.0))
    await asyncio.sleep(1)
    assert await node.call(f, SHORT) == pytest.approx(2 * START, abs=0.01)
    await node.close()


@simulated
async def test_what_was_found_out_of_a_function_is_known_when_its_containers_are_gone() -> None:
    node = Node(64, start_time=START)
    f = node.target("f", idle_timeout=5.0)
    await node.call(f, 1.0)
    await asyncio.sleep(20)
    assert not node.scheduler._queues
    began = now()
    waits = [node.begin(node.call(f, 1.0)) for _ in range(4)]
    await asyncio.sleep(2 * START)
    # None of them has waited for a call to end.
    assert len([start for start in node.driver.starts["f"] if start >= began]) >= CORES
    await asyncio.gather(*waits)
    await node.close()
