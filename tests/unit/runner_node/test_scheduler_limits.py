"""Bounded waiting, patience, and the containers that one function may have."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from runner_node.demand import Demand, retry_after
from runner_node.drivers.contract import Exit
from runner_node.fair_share import Share, WaitingRoom
from shared_models import errors
from shared_models.async_policy import MAX_CONCURRENCY
from tests.unit.runner_node.simulation import EJECT, Node, now, simulated


def capped(number: int) -> dict[str, msgspec.Raw]:
    return {MAX_CONCURRENCY: msgspec.Raw(str(number).encode())}


@simulated
async def test_a_container_that_ends_while_a_call_has_it_serves_no_other() -> None:
    node = Node(1)
    fn = node.target("fn")
    container = await node.scheduler.acquire(fn, sync=True, patience=10)
    node.driver.containers[0].end(Exit(1))
    await asyncio.sleep(0.01)
    node.scheduler.release(container, 0.01, keep=True)
    assert not node.scheduler.warm()
    await node.call(fn, 0.1)
    assert len(node.driver.containers) == 2
    await node.close()


# -- how many may wait -------------------------------------------------------------------------


@simulated
async def test_beyond_its_places_a_function_is_refused_at_once_and_another_may_wait() -> None:
    node = Node(1, max_waiting_calls=10)
    slow, other = node.target("slow"), node.target("other")
    node.begin(node.call(slow, 2.0))
    await asyncio.sleep(1)
    waiting = [node.begin(node.call(slow, 2.0)) for _ in range(5)]
    await asyncio.sleep(0)
    began = now()
    with pytest.raises(errors.ServerBusy, match="server too busy") as refused:
        await node.call(slow, 2.0)
    assert now() - began < 0.001
    assert "5 calls of this function wait" in refused.value.detail
    also = [node.begin(node.call(other, 0.1)) for _ in range(3)]
    await asyncio.gather(*waiting, *also)
    await node.close()


@simulated
async def test_when_to_come_again_is_told_by_the_calls_ahead_and_how_long_they_take() -> None:
    node = Node(1, max_waiting_calls=20)
    slow = node.target("slow")
    await node.call(slow, 2.0)
    waiting = [node.begin(node.call(slow, 2.0)) for _ in range(11)]
    await asyncio.sleep(0)
    with pytest.raises(errors.ServerBusy) as refused:
        await node.call(slow, 2.0)
    assert refused.value.retry_after == pytest.approx(20.0)
    await asyncio.sleep(19)
    with pytest.raises(errors.ServerBusy) as late:
        await node.call(slow, 2.0, patience=0.5)
    assert late.value.retry_after < 10
    await asyncio.gather(*waiting)
    await node.close()


@simulated
async def test_bodies_that_wait_are_bounded_and_a_small_one_still_finds_place() -> None:
    node = Node(1, max_waiting_size=1000)
    slow = node.target("slow")
    node.begin(node.call(slow, 5.0))
    await asyncio.sleep(1)
    waiting = [node.begin(node.call(slow, 0.1, size=200)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(errors.ServerBusy, match="too busy") as refused:
        await node.call(slow, 0.1, size=300)
    assert "have 400 bytes" in refused.value.detail
    await node.call(slow, 0.1, size=100)
    await asyncio.gather(*waiting)
    # Larger than all there is, but nobody else waits.
    await node.call(slow, 0.1, size=5000)
    await node.close()


@simulated
async def test_async_calls_take_no_places_from_sync_ones() -> None:
    node = Node(1, max_waiting_calls=4)
    f = node.target("f")
    node.begin(node.call(f, 1.0))
    await asyncio.sleep(0.5)
    queued = [node.begin(node.call(f, 0.1, sync=False)) for _ in range(20)]
    await asyncio.sleep(0)
    await node.call(f, 0.1)
    await asyncio.gather(*queued)
    await node.close()


def test_however_many_functions_are_stuck_there_is_a_place_for_the_next() -> None:
    room, shares = WaitingRoom(1000, 0), [Share(str(number)) for number in range(9)]
    for share in shares:
        while not room.enter(share, 1):
            pass
    assert shares[0].calls == 500
    assert room.calls < 1000
    assert not room.enter(Share("next"), 1)


def test_places_without_a_limit_have_none() -> None:
    room, share = WaitingRoom(0, 0), Share("f")
    assert not any(room.enter(share, 1 << 30) for _ in range(100_000))


def demand(**numbers: Any) -> Demand:
    return Demand(
        **{
            "waiting": 0,
            "starting": 0,
            "containers": 0,
            "service_time": None,
            "start_time": 0.5,
            "oldest_wait": 0.0,
        }
        | numbers
    )


@pytest.mark.parametrize(
    ("numbers", "seconds"),
    [
        ({}, 1.0),  # at least a second
        ({"waiting": 10}, 10.5),  # nothing is known: a second each, and a start
        ({"waiting": 10, "service_time": 2.0, "containers": 1}, 20.0),
        ({"waiting": 10, "service_time": 2.0, "containers": 4}, 5.0),
        ({"waiting": 10, "service_time": 2.0, "containers": 2, "starting": 2}, 5.0),
        ({"waiting": 3, "service_time": 2.0, "starting": 2, "start_time": 4.0}, 7.0),
        ({"waiting": 5000, "service_time": 1.0, "containers": 10}, 60.0),  # at most a minute
        ({"waiting": 64, "service_time": 0.0003, "containers": 1}, 1.0),
    ],
)
def test_the_estimate(numbers: dict[str, Any], seconds: float) -> None:
    assert retry_after(demand(**numbers)) == pytest.approx(seconds)


# -- how long ----------------------------------------------------------------------------------


@simulated
async def test_no_call_waits_longer_than_its_patience() -> None:
    node = Node(1)
    f, other = node.target("f"), node.target("other")
    node.begin(node.call(f, 100.0))
    await asyncio.sleep(1)
    for target in (f, other):
        began = now()
        with pytest.raises(errors.ServerBusy):
            await node.call(target, 1.0, patience=7.0)
        assert now() - began == pytest.approx(7.0)
    await node.close()


@simulated
async def test_a_container_that_does_not_wake_takes_its_time_from_the_call_s_patience() -> None:
    node = Node(1, freeze_idle=0.05)
    f = node.target("f")
    await node.call(f, 1.0)
    await asyncio.sleep(5)
    node.driver.wakeless = 2.0
    node.driver.slow["f"] = 100.0
    began = now()
    with pytest.raises(errors.ServerBusy):
        await node.call(f, 1.0, patience=7.0)
    assert now() - began == pytest.approx(7.0)
    await node.close()


@simulated
async def test_a_call_whose_client_has_gone_away_gets_no_container_and_gives_its_place_back() -> None:
    node = Node(1, max_waiting_calls=10)
    f = node.target("f")
    node.begin(node.call(f, 3.0))
    await asyncio.sleep(1)
    hung_up = False
    gone = [node.begin(node.call(f, 3.0, left=lambda: hung_up)) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in gone)
    hung_up = True
    with pytest.raises(errors.ServerBusy):
        await node.call(f, 1.0)
    for task in gone:
        with pytest.raises(errors.ClientGone):
            await task
    assert await node.call(f, 1.0) == pytest.approx(2.1)
    assert node.served["f"] == 2
    await node.close()


# -- how many containers -----------------------------------------------------------------------


@simulated
async def test_a_function_has_no_more_containers_than_its_annotation_allows() -> None:
    node = Node(16)
    f = node.target("f", annotations=capped(3))
    node.press(f, 10, 2.0)
    node.press(f, 10, 2.0, sync=False)
    await asyncio.sleep(60)
    assert node.driver.most["f"] == 3
    assert node.served["f"] > 80
    await node.close()


@simulated
async def test_a_new_version_waits_until_the_old_one_has_made_room_under_the_cap() -> None:
    node = Node(16)
    old = node.target("f", annotations=capped(1))
    new = node.target("f", annotations=capped(1), env={"K": "new"})
    node.begin(node.call(old, 10.0))
    await asyncio.sleep(1)
    node.scheduler.supersede(old.key)
    assert await node.call(new, 1.0) == pytest.approx(9.2 + 0.2, abs=0.25)
    assert node.driver.most["f"] == 1
    await node.close()


@simulated
async def test_an_idle_container_of_another_version_makes_way_under_the_cap() -> None:
    node = Node(16)
    one = node.target("f", annotations=capped(1))
    two = node.target("f", annotations=capped(1), env={"FN_FORMAT": "other"})
    await node.call(one, 1.0)
    assert await node.call(two, 1.0) <= EJECT + 0.2 + 0.1
    assert node.driver.most["f"] == 1
    await node.close()


@simulated
async def test_the_cap_holds_for_functions_with_a_container_for_each_call() -> None:
    node = Node(16)
    targets = [
        node.target("cold", annotations=capped(2), key=str(number).encode(), origin=b"cold")
        for number in range(8)
    ]

    async def call_once(target: Any) -> None:
        container = await node.scheduler.acquire(target, sync=True, patience=100)
        await asyncio.sleep(1.0)
        node.scheduler.release(container, 1.0, keep=False)

    await asyncio.gather(*(call_once(target) for target in targets))
    assert node.driver.most["cold"] == 2
    await node.close()


@simulated
async def test_a_long_line_of_calls_that_need_a_container_each_is_worked_off() -> None:
    node = Node(16)
    done = 0

    async def call_once(number: int) -> None:
        nonlocal done
        target = node.target("cold", key=str(number).encode(), origin=b"cold")
        container = await node.scheduler.acquire(target, sync=True, patience=1e5)
        await asyncio.sleep(0.2)
        node.scheduler.release(container, 0.2, keep=False)
        done += 1

    calls = [node.begin(call_once(number)) for number in range(1000)]
    await asyncio.sleep(10)
    assert await node.call(node.target("hot"), 0.1) <= EJECT + 0.5
    await asyncio.gather(*calls)
    assert done == 1000
    await node.close()
