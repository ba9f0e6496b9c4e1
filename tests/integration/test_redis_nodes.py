"""Nodes that share a queue on Redis: who is woken, whose clock counts, what is left behind."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis.asyncio

from services.queue import open_queue
from shared_models.call import LeasedCall
from tests.integration.redis_queues import TTL, a_call, got, ids, waiting
from tests.servers.server import Server


async def test_a_push_wakes_a_reserve_of_another_node(nodes) -> None:
    one, other = nodes
    waiter = await waiting(other)
    call = a_call()
    await one.push(call)
    assert await got(waiter) == [call.id]


async def test_a_release_wakes_a_reserve_of_another_node(nodes) -> None:
    one, other = nodes
    call = a_call()
    await one.push(call)
    [leased] = await one.reserve(1, 0, TTL)
    waiter = await waiting(other)
    await one.release([leased.key])
    assert await got(waiter) == [call.id]


async def test_a_requeued_call_wakes_a_reserve_of_another_node_when_it_is_due(nodes) -> None:
    one, other = nodes
    call = a_call()
    await one.push(call)
    [leased] = await one.reserve(1, 0, TTL)
    waiter = await waiting(other)
    assert await one.requeue([leased.key], 0.3) == []
    assert await got(waiter) == [call.id]


async def test_a_call_of_another_function_wakes_a_reserve_of_another_node_at_once(nodes) -> None:
    one, other = nodes
    for _ in range(3):
        await one.push(a_call(fn_id="full"))
    waiter = await waiting(other, without=["full"])
    call = a_call()
    await one.push(call)
    assert await got(waiter) == [call.id]


async def test_an_extension_by_nothing_wakes_a_reserve_of_another_node(nodes) -> None:
    one, other = nodes
    call = a_call()
    await one.push(call)
    [leased] = await one.reserve(1, 0, TTL)
    waiter = await waiting(other)
    await one.extend([leased.key], 0)
    assert await got(waiter) == [call.id]


async def test_a_lease_that_runs_out_wakes_a_reserve_of_another_node(nodes) -> None:
    one, other = nodes
    call = a_call()
    await one.push(call)
    await one.reserve(1, 0, 1.0)
    # On a busy machine it has run out before anybody looks.
    assert await got(asyncio.create_task(other.reserve(1, 600, TTL))) == [call.id]


async def test_a_lease_that_is_made_shorter_wakes_a_reserve_of_another_node(nodes) -> None:
    one, other = nodes
    call = a_call()
    await one.push(call)
    [leased] = await one.reserve(1, 0, TTL)
    waiter = await waiting(other)
    await one.extend([leased.key], 0.3)
    assert await got(waiter) == [call.id]


async def test_a_delayed_call_wakes_a_reserve_of_another_node_when_it_is_due(nodes) -> None:
    one, other = nodes
    waiter = await waiting(other)
    call = a_call(delay=1)
    await one.push(call)
    assert await got(waiter) == [call.id]


async def test_many_reserves_of_two_nodes_share_the_calls(nodes) -> None:
    waiters = [await waiting(node) for node in nodes for _ in range(10)]
    calls = [a_call() for _ in waiters]
    await asyncio.gather(*[nodes[0].push(call) for call in calls])
    taken = [call_id for waiter in waiters for call_id in await got(waiter)]
    assert sorted(taken) == sorted(call.id for call in calls)


async def test_leases_go_by_the_servers_clock_whatever_the_nodes_clocks_say(
    nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, behind = nodes
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    await ahead.push(a_call())
    [leased] = await ahead.reserve(1, 0, TTL)
    assert leased.lease.age < TTL
    monkeypatch.setattr(time, "time", lambda: real() - 600)
    await behind.push(a_call())
    [other] = await behind.reserve(2, 0, TTL)
    assert other.lease.age < TTL
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    assert await ahead.reserve(2, 0, TTL) == [], "neither has run out"
    assert await ahead.extend([leased.key, other.key], TTL) == []


async def test_prefixes_keep_queues_apart(own_redis: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(f"{own_redis.url}?prefix=a") as a, open_queue(f"{own_redis.url}?prefix=b") as b:
        call = a_call()
        await a.push(call)
        assert await b.holds([call.id]) == set()
        assert await b.reserve(1, 0, TTL) == []
    assert {key.partition("}")[0] for key in await admin.keys()} == {"{a", "{b"}


async def test_what_is_deleted_leaves_nothing_behind(own_redis: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(own_redis.url) as queue:
        for delay in (0, 0, 60):
            await queue.push(call := a_call(delay=delay))
        leased = await queue.reserve(1, 0, TTL)
        rest = await queue.reserve(1, 0, TTL)
        await queue.extend([rest[0].key], 0)
        await queue.delete([one.key for one in (*leased, *rest)])
        await queue.delete([LeasedCall(call=call).key])
    assert sorted(await admin.keys()) == ["{fn}:sequence", "{fn}:version"]


async def test_more_operations_than_connections_take_turns(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(f"{own_redis.url}?pool_size=1") as queue:
        await asyncio.gather(*[queue.push(a_call()) for _ in range(50)])
        taken = await asyncio.gather(*[queue.reserve(1, 5, TTL) for _ in range(50)])
        assert len({call_id for leased in taken for call_id in ids(leased)}) == 50


async def test_large_payloads_come_in_several_answers(own_redis: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(own_redis.url) as queue:
        payload = bytes(range(256)) * 4096 * 3
        pushed = [a_call(payload=payload) for _ in range(8)]
        await asyncio.gather(*[queue.push(call) for call in pushed])
        found = await queue.find([call.id for call in pushed])
        assert [found[call.id].payload == payload for call in pushed] == [True] * 8
        taken: list[LeasedCall] = []
        while some := await queue.reserve(100, 0, TTL):
            assert len(some) < 8
            taken += some
        assert [one.call.payload == payload for one in taken] == [True] * 8
