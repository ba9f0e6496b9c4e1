"""The queue on PostgreSQL and MariaDB: several nodes, their clocks, servers that fail, its plans."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import open_database
from services.datastore.tables import messages
from services.queue import notify, open_queue, server_clock
from services.queue.sql import SQLQueue
from shared_models.call import Call, LeaseKey
from shared_models.errors import QueueUnavailable
from shared_models.interfaces import MessageQueue
from tests.integration.query_plans import captured, plan_of
from tests.integration.redis_queues import TTL, a_call, got, ids, waiting
from tests.integration.sql_queues import NOW, empty, fill
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.server import Server

LIMIT = 60.0
"""Seconds that an answer may take at the very most, where the URL says two seconds."""
KINDS: dict[str, type[Postgres] | type[MariaDB]] = {"postgres": Postgres, "mariadb": MariaDB}


@pytest.fixture(params=KINDS)
async def url(request: pytest.FixtureRequest) -> str:
    """The URL of a server that is there to stay, with an empty queue."""
    found = str(request.getfixturevalue(request.param).url)
    await empty(found)
    return found


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def own(request: pytest.FixtureRequest, own_server: Callable[..., Server]) -> Any:
    """A durable server of the test's own."""
    return own_server(request.param, True)


@pytest.fixture
async def nodes(url: str) -> AsyncIterator[tuple[MessageQueue, MessageQueue]]:
    """Two queues that know nothing of each other."""
    async with open_queue(url) as one, open_queue(url) as other:
        yield one, other


async def test_nodes_that_take_at_the_same_time_never_get_the_same_call(nodes) -> None:
    made = [a_call() for _ in range(200)]
    await asyncio.gather(*[nodes[n % 2].push(call) for n, call in enumerate(made)])

    async def taking(node: MessageQueue) -> list[str]:
        found: list[str] = []
        while taken := await node.reserve(3, 0.2, TTL):
            found += ids(taken)
        return found

    found = await asyncio.gather(*[taking(nodes[n % 2]) for n in range(8)])
    assert sorted(call_id for some in found for call_id in some) == sorted(call.id for call in made)


async def test_calls_that_another_node_is_taking_are_passed_over(nodes) -> None:
    one, other = nodes
    made = [a_call() for _ in range(6)]
    for call in made:
        await one.push(call)
    taken = await asyncio.gather(one.reserve(3, 5, TTL), other.reserve(3, 5, TTL))
    assert all(taken)
    # MariaDB locks one more than it hands out, for a moment: that one is passed over, too.
    rest = await one.reserve(6, 1, TTL) if len(taken[0] + taken[1]) < 6 else []
    assert sorted(ids([*taken[0], *taken[1], *rest])) == sorted(call.id for call in made)


async def test_what_others_hold_for_a_while_is_looked_at_now_and_then(url) -> None:
    async with open_database(url) as database, open_database(url) as other:
        queue = SQLQueue(database, time.time)
        await queue.push(call := a_call())
        assert ids(await queue.reserve(1, 0, 0)) == [call.id]

        async def hold(connection: AsyncConnection) -> None:
            await connection.execute(select(messages.c.place).with_for_update())
            with captured(database) as statements:
                assert await queue.reserve(1, 0.5, TTL) == []
            # Two looks and an attempt, each twentieth of a second.
            assert len(statements) < 60

        await other.transact(hold)
        assert ids(await queue.reserve(1, 5, TTL)) == [call.id]


async def test_reserves_that_come_together_share_what_is_there_in_their_order(nodes) -> None:
    made = [a_call() for _ in range(5)]
    for call in made:
        await nodes[0].push(call)
    first, *others = await asyncio.gather(*[nodes[0].reserve(n, 0, 10.0 * n) for n in (1, 2, 2)])
    assert [*ids(first), *[call_id for some in others for call_id in ids(some)]] == [c.id for c in made]
    assert [one.lease.ttl for some in (first, *others) for one in some] == [10, 20, 20, 20, 20]


async def test_the_same_call_of_two_nodes_is_queued_once(nodes) -> None:
    made = [a_call() for _ in range(20)]
    pushed = await asyncio.gather(*[node.push(call) for call in made for node in nodes])
    assert sum(pushed) == len(made)
    assert len(await nodes[0].reserve(100, 0, TTL)) == len(made)


async def test_every_lease_has_a_token_of_its_own(nodes) -> None:
    for _ in range(5):
        await nodes[0].push(a_call())
    leased = await nodes[0].reserve(5, 0, TTL)
    assert len({one.lease.token for one in leased}) == 5
    assert not await nodes[1].extend([one.key for one in leased], TTL)


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


async def test_a_lease_of_another_node_that_runs_out_wakes_a_reserve(nodes) -> None:
    one, other = nodes
    call = a_call()
    await one.push(call)
    await one.reserve(1, 0, 1.0)
    # On a busy machine it has run out before anybody looks.
    assert await got(asyncio.create_task(other.reserve(1, 600, TTL))) == [call.id]


async def test_postgresql_tells_other_nodes_without_their_looking(postgres, monkeypatch) -> None:
    await empty(postgres.url)
    heard = asyncio.Event()
    monkeypatch.setattr("services.queue.sql.LOOK_EVERY", {"postgres": 3600.0})
    monkeypatch.setattr(SQLQueue, "ring", _noting(SQLQueue.ring, heard))
    async with open_queue(postgres.url) as one, open_queue(postgres.url) as other:
        await asyncio.wait_for(heard.wait(), LIMIT)
        waiter = await waiting(other)
        call = a_call()
        await one.push(call)
        assert await got(waiter) == [call.id]


def _noting(method: Callable[..., None], event: asyncio.Event, times: int = 2) -> Callable[..., None]:
    """*method*, with *event* set when it was called so many *times*: once by each node that listens."""
    left = times

    def ring(self: Any, fn_id: str | None = None) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            event.set()
        method(self, fn_id)

    return ring


async def test_nodes_whose_clocks_are_ten_minutes_apart_agree_on_leases(url, monkeypatch) -> None:
    real = time.time
    async with open_queue(url) as one:
        monkeypatch.setattr(time, "time", lambda: real() + 600)
        async with open_queue(url) as other:
            call = a_call()
            await one.push(call)
            [leased] = await one.reserve(1, 0, TTL)
            assert await other.reserve(1, 0, TTL) == []
            [depth] = await other.depths()
            assert (depth.queued, depth.leased) == (0, 1)
            await one.release([leased.key])
            [again] = await other.reserve(1, 5, TTL)
            assert again.lease.age < 300


async def test_the_servers_time_is_between_that_of_before_and_after_the_question() -> None:
    async def ask() -> float:
        return NOW

    async with server_clock.running_clock(ask) as clock:
        before = clock()
        assert NOW <= before < NOW + LIMIT
        assert clock() >= before


async def test_what_was_answered_survives_a_killed_server(own, monkeypatch) -> None:
    monkeypatch.setattr(notify, "QUIET", 0.2)
    url = own.url_of("fn", timeout=50, connect_timeout=50)
    async with open_queue(url) as queue:
        made = [a_call(priority=n % 2) for n in range(20)]
        await asyncio.gather(*[queue.push(call) for call in made])
        [gone, held] = await queue.reserve(2, 0, 600)
        await queue.delete([gone.key])
        own.stop()
        with pytest.raises(QueueUnavailable):
            await queue.push(a_call())
        own.start()
        found = await queue.reserve(100, 30, TTL)
        assert {*ids(found), gone.call.id, held.call.id} == {call.id for call in made}
        assert len(found) == 18
        assert not await queue.extend([held.key], TTL)


async def test_postgresql_is_listened_to_again_after_it_was_killed(own_server, monkeypatch) -> None:
    monkeypatch.setattr("services.queue.sql.LOOK_EVERY", {"postgres": 3600.0})
    server = own_server(Postgres, True)
    url = server.url_of("fn", timeout=50, connect_timeout=50)
    async with open_queue(url) as one, open_queue(url) as other:
        await one.push(a_call())
        server.stop()
        with pytest.raises(QueueUnavailable):
            await other.push(a_call())
        heard = asyncio.Event()
        monkeypatch.setattr(SQLQueue, "ring", _noting(SQLQueue.ring, heard))
        server.start()
        assert len(await other.reserve(1, 5, TTL)) == 1
        waiter = await waiting(other)
        call = a_call()
        await one.push(call)
        assert await got(waiter) == [call.id]


async def test_a_server_that_is_held_still_is_unavailable_to_everybody_in_time(own) -> None:
    url = own.url_of("fn", timeout=2, connect_timeout=2)
    async with open_queue(url) as queue:
        await queue.push(a_call())
        own.pause()
        try:
            async with asyncio.timeout(LIMIT):
                asked: list[Any] = [queue.push(a_call()) for _ in range(30)]
                asked += [queue.reserve(1, 0, TTL) for _ in range(30)]
                asked += [queue.depths(), queue.depth("fn"), queue.holds(["one"]), queue.find(["one"])]
                asked += [queue.requeue([LeaseKey("one", "t")], 1), queue.reserve(1, 0, TTL, ["fn"])]
                answers = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            own.resume()
        assert {type(answer) for answer in answers} == {QueueUnavailable}
        call = a_call(priority=1)
        async with asyncio.timeout(LIMIT):
            while True:
                with contextlib.suppress(QueueUnavailable):  # it is a moment ago that it stood still
                    await queue.push(call)
                    break
            assert call.id in ids(await queue.reserve(100, 5, TTL))


async def test_a_server_that_is_not_there_is_told_in_one_line_without_the_password(own) -> None:
    own.stop()
    with pytest.raises(QueueUnavailable) as caught:
        async with open_queue(own.url_of("fn", connect_timeout=1)):
            pass
    assert "\n" not in caught.value.explained
    assert "secret" not in caught.value.explained


async def test_no_statement_scans_past_leased_or_delayed_messages(url) -> None:
    async with open_database(url) as database:
        await fill(database)
        queue = SQLQueue(database, lambda: NOW)
        with captured(database) as statements:
            await queue.reserve(10, 0, TTL)
        await fill(database)
        assert len([text for text, _ in statements if "SKIP LOCKED" in text]) == 2
        for statement in statements:
            plan = await plan_of(database, statement)
            # What is due, and nothing else, may be sorted.
            wrong = set(plan.wrong) - ({"Sort", "filesort"} if "free_at" in plan.seeks else set())
            assert not wrong, plan.said
            assert "ready" in plan.seeks, plan.said


async def test_calls_are_looked_up_by_their_ids_alone(url) -> None:
    async with open_database(url) as database:
        await fill(database)
        queue = SQLQueue(database, lambda: NOW)
        with captured(database) as statements:
            await queue.holds([f"{n:026}" for n in range(3)])
            await queue.push(Call(id=f"{3:026}", fn_id="fn"))
            await queue.delete([])
        assert statements
        for statement in statements:
            plan = await plan_of(database, statement)
            assert not plan.wrong, plan.said
            assert "id" in plan.seeks, plan.said
