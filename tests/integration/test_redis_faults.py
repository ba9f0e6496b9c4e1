"""A Redis server that stops, hangs, forgets, or whose answers are lost: what was answered stays true."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from services.queue import open_queue, redis_bell
from shared_models.call import LeaseKey
from shared_models.errors import QueueUnavailable
from tests.integration.redis_queues import TTL, a_call, got, ids, waiting
from tests.servers.server import Server

QUICK = "?timeout=2&connect_timeout=2"


async def test_what_a_push_has_answered_survives_a_kill_of_the_server(
    own_redis: Server, admin: redis.asyncio.Redis
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

    async with open_queue(own_redis.url) as queue:
        pushers = [asyncio.create_task(push_on()) for _ in range(8)]
        await asyncio.wait(
            (*pushers, asyncio.create_task(enough.wait())), return_when=asyncio.FIRST_COMPLETED
        )
        assert enough.is_set()
        await asyncio.to_thread(own_redis.stop)
        ends = await asyncio.gather(*pushers, return_exceptions=True)
        assert {type(end) for end in ends} == {QueueUnavailable}
        with pytest.raises(QueueUnavailable):
            await queue.reserve(1, 0, TTL)
        await asyncio.to_thread(own_redis.start)
        assert await queue.holds(answered) == set(answered)
        taken = await queue.reserve(100, 0, TTL)
        assert [one.lease.attempt for one in taken] == [1] * 100


async def test_leases_survive_a_restart_of_the_server(own_redis: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(own_redis.url) as queue:
        for _ in range(2):
            await queue.push(a_call())
        [leased] = await queue.reserve(1, 0, TTL)
        await asyncio.to_thread(own_redis.stop)
        await asyncio.to_thread(own_redis.start)
        assert leased.call.id not in ids(await queue.reserve(5, 0, TTL))
        assert await queue.extend([leased.key], TTL) == []
        await queue.delete([leased.key])
        assert await queue.holds([leased.call.id]) == set()


async def test_a_waiting_reserve_goes_on_when_the_server_is_back(nodes, own_redis: Server) -> None:
    one, other = nodes
    waiter = await waiting(other)
    await asyncio.to_thread(own_redis.stop)
    with pytest.raises(QueueUnavailable):
        await one.push(a_call())
    await asyncio.to_thread(own_redis.start)
    call = a_call()
    await one.push(call)
    assert await got(waiter) == [call.id]
    waiter, later = await waiting(other), a_call()
    await one.push(later)
    assert await got(waiter) == [later.id], "the new subscription is heard as well"


async def test_a_server_that_hangs_is_unavailable_in_time_and_used_again(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(own_redis.url + QUICK) as queue:
        await queue.push(a_call())
        [leased] = await queue.reserve(1, 0, TTL)
        own_redis.pause()
        try:
            operations = (
                queue.push(a_call()),
                queue.reserve(1, 60, TTL),
                queue.extend([leased.key], TTL),
                queue.release([leased.key]),
                queue.requeue([leased.key], 1),
                queue.find([leased.call.id]),
                queue.depth("fn"),
                queue.reserve(1, 60, TTL, ["fn"]),
                queue.delete([leased.key]),
                queue.holds([leased.call.id]),
                queue.depths(),
            )
            ends = await asyncio.wait_for(asyncio.gather(*operations, return_exceptions=True), 60)
            assert [type(end) for end in ends] == [QueueUnavailable] * len(operations)
            assert {end.detail.partition(":")[0] for end in ends} == {"it did not answer in time"}
            with pytest.raises(QueueUnavailable, match="did not answer in time"):
                async with open_queue(own_redis.url + QUICK):
                    pass
        finally:
            own_redis.resume()
        call = a_call()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(QueueUnavailable):  # it is a moment ago that it stood still
                    await queue.push(call)
                    break
        assert await queue.holds([call.id]) == {call.id}


async def test_a_server_that_falls_silent_is_noticed_and_heard_again(
    own_redis: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_bell, "QUIET", 0.05)
    async with open_queue(own_redis.url) as one, open_queue(own_redis.url + QUICK) as other:
        waiter = await waiting(other)
        own_redis.pause()
        async with asyncio.timeout(60):
            while "is lost, and tried again: it did not answer in time" not in caplog.text:
                await asyncio.sleep(0.01)
        own_redis.resume()
        call = a_call()
        await one.push(call)
        assert await got(waiter) == [call.id]
        waiter, later = await waiting(other), a_call()
        await one.push(later)
        assert await got(waiter) == [later.id]


async def test_a_node_can_stop_at_any_moment_of_its_return_to_the_server(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    for turns in range(40):
        async with asyncio.timeout(60):
            async with open_queue(own_redis.url) as queue:
                await queue.push(a_call())
                await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                for _ in range(turns):
                    await asyncio.sleep(0)


async def test_an_operation_that_is_cancelled_ends_at_once_and_is_done_nevertheless(
    own_redis: Server,
) -> None:
    async with open_queue(own_redis.url) as queue:
        for turns in range(40):
            call = a_call()
            await queue.push(call)
            deletion = asyncio.create_task(queue.delete([LeaseKey(call.id, "")]))
            for _ in range(turns):
                await asyncio.sleep(0)
            if deletion.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await deletion
    async with open_queue(own_redis.url) as queue:
        assert [one.queued for one in await queue.depths()] in ([], [1]), "the first was not begun"


async def test_scripts_that_the_server_forgot_are_sent_again(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(own_redis.url) as queue:
        await queue.push(a_call())
        await admin.script_flush()
        calls = [a_call() for _ in range(20)]
        assert await asyncio.gather(*[queue.push(call) for call in calls]) == [True] * 20
        await admin.script_flush()
        assert len(await queue.reserve(30, 0, TTL)) == 21


async def test_a_push_whose_answer_is_lost_is_done_once(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with cutting_after_answer(own_redis, b"marked") as url, open_queue(url) as queue:
        call = a_call(payload=b"marked")
        assert await queue.push(call) is False, "the first attempt was done, its answer was lost"
        assert await queue.holds([call.id]) == {call.id}
        assert ids(await queue.reserve(5, 0, TTL)) == [call.id]


async def test_a_reserve_whose_answer_is_lost_is_not_done_twice(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with cutting_after_answer(own_redis, b"77.25") as url, open_queue(url) as queue:
        calls = [a_call(), a_call()]
        for call in calls:
            await queue.push(call)
        with pytest.raises(QueueUnavailable):
            await queue.reserve(1, 0, 77.25)
        assert [(one.queued, one.leased) for one in await queue.depths()] == [(1, 1)]


@asynccontextmanager
async def cutting_after_answer(own_redis: Server, mark: bytes) -> AsyncIterator[str]:
    """A way to the server that loses one answer: that to the first request with *mark*, and is cut then."""
    host, port = own_redis.url.removeprefix("redis://").partition("/")[0].split(":")
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
