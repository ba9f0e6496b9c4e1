"""The queue on Redis where several nodes share it, and when the server fails in all the ways it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from services.queue import open_queue, redis_bell
from shared_models.call import Call, LeasedCall
from shared_models.errors import QueueUnavailable
from shared_models.ids import new_id
from shared_models.interfaces import MessageQueue
from tests.servers.redis import Redis
from tests.servers.server import Server

TTL = 30.0
QUICK = "?timeout=0.3&connect_timeout=0.3"


@pytest.fixture
def server(own_server: Callable[..., Server]) -> Server:
    """A durable one of the test's own."""
    return own_server(Redis, True)


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the server."""
    async with redis.asyncio.from_url(server.url, protocol=2, decode_responses=True) as client:
        yield client


def a_call(**more: Any) -> Call:
    return Call(id=new_id(), **{"fn_id": "fn", "app_id": "app", **more})


def ids(leased: list[LeasedCall]) -> list[str]:
    return [one.call.id for one in leased]


async def waiting(queue: MessageQueue, wait: float = 60) -> asyncio.Task[list[LeasedCall]]:
    """A reserve that has looked and found nothing."""
    looked = asyncio.Event()
    next_free = queue._next_free

    async def after_the_look() -> float:
        looked.set()
        return await next_free()

    queue._next_free = after_the_look
    task = asyncio.create_task(queue.reserve(1, wait, TTL))
    await asyncio.wait_for(looked.wait(), 10)
    return task


async def got(task: asyncio.Task[list[LeasedCall]]) -> list[str]:
    return ids(await asyncio.wait_for(task, 15))


# -- several nodes -----------------------------------------------------------------------------


@pytest.fixture
async def nodes(
    server: Server, admin: redis.asyncio.Redis
) -> AsyncIterator[tuple[MessageQueue, MessageQueue]]:
    async with open_queue(server.url) as one, open_queue(server.url) as other:
        yield one, other


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
    await one.reserve(1, 0, 0.3)
    assert await got(await waiting(other)) == [call.id]


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


async def test_prefixes_keep_queues_apart(server: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(f"{server.url}?prefix=a") as a, open_queue(f"{server.url}?prefix=b") as b:
        call = a_call()
        await a.push(call)
        assert await b.holds([call.id]) == set()
        assert await b.reserve(1, 0, TTL) == []
    assert {key.partition("}")[0] for key in await admin.keys()} == {"{a", "{b"}


async def test_what_is_deleted_leaves_nothing_behind(server: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(server.url) as queue:
        for delay in (0, 0, 60):
            await queue.push(call := a_call(delay=delay))
        leased = await queue.reserve(1, 0, TTL)
        rest = await queue.reserve(1, 0, TTL)
        await queue.extend([rest[0].key], 0)
        await queue.delete([one.key for one in (*leased, *rest)])
        await queue.delete([LeasedCall(call=call).key])
    assert sorted(await admin.keys()) == ["{fn}:sequence", "{fn}:version"]


async def test_more_operations_than_connections_take_turns(
    server: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(f"{server.url}?pool_size=1") as queue:
        await asyncio.gather(*[queue.push(a_call()) for _ in range(50)])
        taken = await asyncio.gather(*[queue.reserve(1, 5, TTL) for _ in range(50)])
        assert len({call_id for leased in taken for call_id in ids(leased)}) == 50


async def test_large_payloads_come_in_several_answers(server: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(server.url) as queue:
        payload = bytes(range(256)) * 4096 * 3
        await asyncio.gather(*[queue.push(a_call(payload=payload)) for _ in range(8)])
        taken: list[LeasedCall] = []
        while some := await queue.reserve(100, 0, TTL):
            assert len(some) < 8
            taken += some
        assert [one.call.payload == payload for one in taken] == [True] * 8


# -- a server that stops, hangs, forgets -------------------------------------------------------


async def test_what_a_push_has_answered_survives_a_kill_of_the_server(
    server: Server, admin: redis.asyncio.Redis
) -> None:
    answered: list[str] = []
    enough = asyncio.Event()

    async def push_on() -> None:
        while True:
            call = a_call(payload=b"x" * 1000)
            await queue.push(call)
            answered.append(call.id)
            if len(answered) > 200:
                enough.set()

    async with open_queue(server.url) as queue:
        pushers = [asyncio.create_task(push_on()) for _ in range(8)]
        await asyncio.wait(
            (*pushers, asyncio.create_task(enough.wait())), return_when=asyncio.FIRST_COMPLETED
        )
        assert enough.is_set()
        await asyncio.to_thread(server.stop)
        ends = await asyncio.gather(*pushers, return_exceptions=True)
        assert {type(end) for end in ends} == {QueueUnavailable}
        with pytest.raises(QueueUnavailable):
            await queue.reserve(1, 0, TTL)
        await asyncio.to_thread(server.start)
        assert await queue.holds(answered) == set(answered)
        taken = await queue.reserve(100, 0, TTL)
        assert [one.lease.attempt for one in taken] == [1] * 100


async def test_leases_survive_a_restart_of_the_server(server: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(server.url) as queue:
        for _ in range(2):
            await queue.push(a_call())
        [leased] = await queue.reserve(1, 0, TTL)
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        assert leased.call.id not in ids(await queue.reserve(5, 0, TTL))
        assert await queue.extend([leased.key], TTL) == []
        await queue.delete([leased.key])
        assert await queue.holds([leased.call.id]) == set()


async def test_a_waiting_reserve_goes_on_when_the_server_is_back(nodes, server: Server) -> None:
    one, other = nodes
    waiter = await waiting(other)
    await asyncio.to_thread(server.stop)
    with pytest.raises(QueueUnavailable):
        await one.push(a_call())
    await asyncio.to_thread(server.start)
    call = a_call()
    await one.push(call)
    assert await got(waiter) == [call.id]
    waiter, later = await waiting(other), a_call()
    await one.push(later)
    assert await got(waiter) == [later.id], "the new subscription is heard as well"


async def test_a_server_that_hangs_is_unavailable_in_time_and_used_again(
    server: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(server.url + QUICK) as queue:
        await queue.push(a_call())
        [leased] = await queue.reserve(1, 0, TTL)
        server.pause()
        try:
            operations = (
                queue.push(a_call()),
                queue.reserve(1, 60, TTL),
                queue.extend([leased.key], TTL),
                queue.release([leased.key]),
                queue.delete([leased.key]),
                queue.holds([leased.call.id]),
                queue.depths(),
            )
            ends = await asyncio.wait_for(asyncio.gather(*operations, return_exceptions=True), 15)
            assert [type(end) for end in ends] == [QueueUnavailable] * len(operations)
            assert {end.detail.partition(":")[0] for end in ends} == {"it did not answer in time"}
            with pytest.raises(QueueUnavailable, match="did not answer in time"):
                async with open_queue(server.url + QUICK):
                    pass
        finally:
            server.resume()
        call = a_call()
        await queue.push(call)
        assert await queue.holds([call.id]) == {call.id}


async def test_a_server_that_falls_silent_is_noticed_and_heard_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_bell, "QUIET", 0.05)
    async with open_queue(server.url) as one, open_queue(server.url + QUICK) as other:
        waiter = await waiting(other)
        server.pause()
        async with asyncio.timeout(10):
            while "is lost, and tried again: it did not answer in time" not in caplog.text:
                await asyncio.sleep(0.01)
        server.resume()
        call = a_call()
        await one.push(call)
        assert await got(waiter) == [call.id]
        waiter, later = await waiting(other), a_call()
        await one.push(later)
        assert await got(waiter) == [later.id]


async def test_scripts_that_the_server_forgot_are_sent_again(
    server: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(server.url) as queue:
        await queue.push(a_call())
        await admin.script_flush()
        calls = [a_call() for _ in range(20)]
        assert await asyncio.gather(*[queue.push(call) for call in calls]) == [True] * 20
        await admin.script_flush()
        assert len(await queue.reserve(30, 0, TTL)) == 21


async def test_a_push_whose_answer_is_lost_is_done_once(server: Server, admin: redis.asyncio.Redis) -> None:
    async with cutting_after_answer(server, b"marked") as url, open_queue(url) as queue:
        call = a_call(payload=b"marked")
        assert await queue.push(call) is False, "the first attempt was done, its answer was lost"
        assert await queue.holds([call.id]) == {call.id}
        assert ids(await queue.reserve(5, 0, TTL)) == [call.id]


async def test_a_reserve_whose_answer_is_lost_is_not_done_twice(
    server: Server, admin: redis.asyncio.Redis
) -> None:
    async with cutting_after_answer(server, b"77.25") as url, open_queue(url) as queue:
        calls = [a_call(), a_call()]
        for call in calls:
            await queue.push(call)
        with pytest.raises(QueueUnavailable):
            await queue.reserve(1, 0, 77.25)
        assert [(one.queued, one.leased) for one in await queue.depths()] == [(1, 1)]


@asynccontextmanager
async def cutting_after_answer(server: Server, mark: bytes) -> AsyncIterator[str]:
    """A way to the server that loses one answer: that to the first request with *mark*, and is cut then."""
    host, port = server.url.removeprefix("redis://").partition("/")[0].split(":")
    armed = [mark]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        asked = asyncio.Event()

        async def requests() -> None:
            while data := await reader.read(65536):
                if armed and armed[0] in data:
                    armed.clear()
                    asked.set()
                back.write(data)

        async def answers() -> None:
            while (data := await there.read(65536)) and not asked.is_set():
                writer.write(data)

        ways = [asyncio.create_task(way()) for way in (requests, answers)]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, back):
            end.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"
