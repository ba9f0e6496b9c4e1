"""Reserves that pass over functions on PostgreSQL and MariaDB: order, other nodes, and what is read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database, open_database
from services.datastore.tables import messages
from services.queue import open_queue
from services.queue.notify import hearing
from services.queue.sql import SQLQueue
from shared_models.interfaces import MessageQueue
from tests.integration.query_plans import captured, plan_of
from tests.integration.redis_queues import TTL, a_call, got, ids, waiting
from tests.integration.sql_queues import NOW, empty, filled_by

FULL, OTHERS = 5_000, 20
FINDING = ("WITH RECURSIVE", "SELECT DISTINCT")
LOOK = 2
"""Statements of a look without a lock."""


@pytest.fixture(params=["postgres", "mariadb"])
async def url(request: pytest.FixtureRequest) -> str:
    """The URL of a server that is there to stay, with an empty queue."""
    found = str(request.getfixturevalue(request.param).url)
    await empty(found)
    return found


@pytest.fixture
async def nodes(url: str) -> AsyncIterator[tuple[MessageQueue, MessageQueue]]:
    """Two queues that know nothing of each other."""
    async with open_queue(url) as one, open_queue(url) as other:
        yield one, other


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url) as opened:
        yield opened


async def fill(connection: AsyncConnection) -> None:
    """Calls of one function in front of a few of others."""
    rows = [
        {
            "id": f"{number:026}",
            "fn_id": "full" if number < FULL else f"fn{number % 4}",
            "rank": 0,
            "ready": 1,
            "pushed": NOW - 60,
            "free_at": NOW,
            "attempt": 0,
            "token": "",
            "call": f'{{"id":"{number:026}"}}',
            "payload": b"x" * 100,
        }
        for number in range(FULL + OTHERS)
    ]
    await connection.execute(delete(messages))
    await connection.execute(insert(messages), rows)


async def test_the_order_over_more_functions_than_one_statement_names(nodes) -> None:
    calls = [a_call(fn_id=f"fn{number * 7 % 150}", priority=number % 3) for number in range(300)]
    for call in calls:
        await nodes[0].push(call)
    expected = [
        call.id for call in sorted(calls, key=lambda call: -call.priority) if call.fn_id not in ("fn7", "fn9")
    ]
    taken: list[str] = []
    while some := await nodes[1].reserve(70, 0, TTL, ["fn7", "fn9"]):
        taken += ids(some)
    assert taken == expected


async def test_reserves_that_come_together_and_pass_over_different_functions_get_their_own(nodes) -> None:
    calls = {fn_id: [a_call(fn_id=fn_id) for _ in range(6)] for fn_id in "abc"}
    for pushed in zip(*calls.values(), strict=True):
        for call in pushed:
            await nodes[0].push(call)
    without = [("a",), ("b", "c"), ("a", "b"), ("b", "a")]
    taken = await asyncio.gather(*[nodes[0].reserve(2, 5, TTL, some) for some in without])
    assert [len(some) for some in taken] == [2, 2, 2, 2]
    for passed_over, some in zip(without, taken, strict=True):
        assert not {one.call.fn_id for one in some} & set(passed_over)
    assert len({call_id for some in taken for call_id in ids(some)}) == 8


async def test_nodes_that_pass_over_functions_at_the_same_time_never_get_the_same_call(nodes) -> None:
    calls = [a_call(fn_id=f"fn{number % 5}") for number in range(200)]
    await asyncio.gather(*[nodes[number % 2].push(call) for number, call in enumerate(calls)])

    async def taking(node: MessageQueue, number: int) -> list[str]:
        found: list[str] = []
        while taken := await node.reserve(3, 0.2, TTL, [f"fn{number % 4}"]):
            found += ids(taken)
        return found

    found = await asyncio.gather(*[taking(nodes[n % 2], n) for n in range(8)])
    assert sorted(call_id for some in found for call_id in some) == sorted(call.id for call in calls)


async def test_a_call_of_another_function_wakes_a_reserve_of_another_node(nodes) -> None:
    one, other = nodes
    await one.push(a_call(fn_id="full"))
    waiter = await waiting(other, without=["full"])
    call = a_call()
    await one.push(call)
    assert await got(waiter) == [call.id]


async def test_a_requeued_call_wakes_a_reserve_of_another_node_when_it_is_due(nodes) -> None:
    one, other = nodes
    call = a_call()
    await one.push(call)
    [leased] = await one.reserve(1, 0, TTL)
    waiter = await waiting(other)
    assert await one.requeue([leased.key], 0.3) == []
    assert await got(waiter) == [call.id]


async def test_postgresql_names_the_function_that_has_something_new(postgres: Any) -> None:
    await empty(postgres.url)
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    async with open_database(postgres.url) as database, open_queue(postgres.url) as queue:
        assert database.backend.connect
        async with hearing(database.backend.connect, heard.put_nowait):
            assert await asyncio.wait_for(heard.get(), 60) is None, "something may have been missed"
            await queue.push(a_call(fn_id="a"))
            await queue.push(a_call(fn_id=""))
            assert [await asyncio.wait_for(heard.get(), 60) for _ in range(2)] == ["a", None]
            taken = await queue.reserve(5, 0, TTL)
            await queue.requeue([one.key for one in taken], 0)
            assert await asyncio.wait_for(heard.get(), 60) is None


async def test_a_reserve_that_passes_over_all_there_is_looks_before_and_after_its_wait_and_locks_nothing(
    database: Database,
) -> None:
    queue = SQLQueue(database, lambda: NOW)
    for _ in range(3):
        await queue.push(a_call(fn_id="full"))
    with captured(database) as statements:
        assert await queue.reserve(5, 0.3, TTL, ["full"]) == []
    assert len(statements) == 2 * LOOK
    assert not [statement for statement, _ in statements if "FOR UPDATE" in statement]


async def test_what_falls_due_of_a_function_that_is_passed_over_is_made_ready_once(
    database: Database,
) -> None:
    queue = SQLQueue(database, lambda: now)
    now = NOW
    await queue.push(call := a_call(fn_id="full", delay=10))
    now += 20
    assert await queue.reserve(5, 0, TTL, ["full"]) == []
    with captured(database) as statements:
        assert await queue.reserve(5, 0.3, TTL, ["full"]) == []
    assert len(statements) == 2 * LOOK
    assert ids(await queue.reserve(5, 0, TTL)) == [call.id]


@pytest.mark.parametrize("known", [True, False], ids=["analysed", "believed-empty"])
async def test_nothing_of_what_is_passed_over_is_read(database: Database, known: bool) -> None:
    async def work(connection: AsyncConnection) -> None:
        await filled_by(fill, connection, known=known)

    await database.transact(work)
    queue = SQLQueue(database, lambda: NOW)
    with captured(database) as statements:
        taken = await queue.reserve(10, 0, TTL, ["full"])
        assert (await queue.depth("fn1")).queued == 2
    assert ids(taken) == [f"{number:026}" for number in range(FULL, FULL + 10)]
    await database.transact(fill)
    # What of those finds the functions is a matter of the planner, as long as it believes the table empty.
    if not known:
        statements = [statement for statement in statements if not statement[0].startswith(FINDING)]
    by_function = [
        statement for statement in statements if "free_at)" not in statement[0].partition("FROM")[0]
    ]
    assert len(by_function) >= 4
    for statement in by_function:
        plan = await plan_of(database, statement)
        assert plan.seeks & {"fn_id", "place", "free_at"}, (statement, plan.said)
        assert "Seq Scan" not in plan.wrong, plan.said
        # What a statement has put together itself may be read whole.
        assert not re.search(r'"table_name": "messages",\s+"access_type": "(ALL|index)"', plan.said), (
            plan.said
        )
