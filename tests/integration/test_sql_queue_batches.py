"""The queue on PostgreSQL and MariaDB: leases that are renewed and ended many at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from services.datastore.database import open_database
from services.datastore.tables import messages
from services.queue import open_queue
from services.queue.sql import SQLQueue
from shared_models.call import LeaseKey
from shared_models.errors import TooLarge
from tests.integration.query_plans import captured
from tests.integration.redis_queues import TTL, a_call
from tests.integration.sql_queues import NOW, empty

MOST_PARAMETERS = 32_767
"""Values that one statement of PostgreSQL can name."""


@pytest.fixture(params=["postgres", "mariadb"])
async def url(request: pytest.FixtureRequest) -> str:
    """The URL of a server that is there to stay, with an empty queue; it has time for large statements."""
    found = f"{request.getfixturevalue(request.param).url}?timeout=600"
    await empty(found)
    return found


async def test_leases_that_are_renewed_together_share_a_transaction_and_each_is_told_its_own(
    url: str,
) -> None:
    async with open_database(url) as database:
        queue = SQLQueue(database, lambda: NOW)
        await asyncio.gather(*[queue.push(a_call()) for _ in range(40)])
        leased = await queue.reserve(40, 0, TTL)
        strangers = [LeaseKey(one.call.id, "of somebody else") for one in leased]
        with captured(database) as statements:
            lost = await asyncio.gather(
                *[queue.extend([one.key], TTL) for one in leased],
                *[queue.extend([key], TTL) for key in strangers],
            )
        assert lost == [[]] * 40 + [[key.id] for key in strangers]
        assert len(statements) == 1


async def test_each_of_those_that_are_renewed_together_lasts_as_long_as_it_was_asked_for(url: str) -> None:
    now = NOW
    async with open_database(url) as database:
        queue = SQLQueue(database, lambda: now)
        await asyncio.gather(*[queue.push(a_call()) for _ in range(3)])
        first, short, long = await queue.reserve(3, 0, TTL)
        await asyncio.gather(
            queue.extend([first.key], 3 * TTL),
            queue.extend([short.key], TTL),
            queue.extend([long.key], 3 * TTL),
        )
        now += 2 * TTL
        assert [one.call.id for one in await queue.reserve(3, 0, TTL)] == [short.call.id]


async def test_more_leases_than_a_statement_can_name_are_renewed_given_back_and_ended(url: str) -> None:
    kept: dict[str, Any] = {"fn_id": "fn", "rank": 0, "ready": 0, "pushed": NOW, "call": "{}", "payload": b""}
    held = {**kept, "free_at": NOW + TTL, "attempt": 1, "token": "mine"}
    keys = [LeaseKey(f"{number:026}", "mine") for number in range(MOST_PARAMETERS + 1)]
    async with open_database(url) as database:
        await database.transact(
            lambda it: it.execute(insert(messages), [{**held, "id": key.id} for key in keys])
        )
        queue = SQLQueue(database, lambda: NOW)
        assert await queue.extend(keys, TTL) == []
        await queue.delete(keys)
        assert await queue.depths() == []


async def test_a_call_that_is_too_large_for_the_server_is_refused_and_harms_no_other(mariadb: Any) -> None:
    async with open_database(mariadb.url) as database:
        most = int(await database.read(lambda it: it.scalar(text("SELECT @@max_allowed_packet"))))
    large, plain = a_call(payload=b"'" * (most // 2)), a_call(payload=b"'" * (most // 2 - 2**16))
    async with open_queue(mariadb.url) as queue:
        *others, refusal = await asyncio.gather(
            queue.push(a_call()), queue.push(plain), queue.push(large), return_exceptions=True
        )
        assert others == [True, True]
        assert isinstance(refusal, TooLarge)
        assert await queue.holds([large.id, plain.id]) == {plain.id}


async def test_calls_that_are_large_together_are_found_in_several_answers(url: str) -> None:
    async with open_database(url) as database:
        queue = SQLQueue(database, lambda: NOW)
        calls = [a_call(payload=bytes(range(256)) * 4096 * 3) for _ in range(5)]
        for call in calls:
            await queue.push(call)
        with captured(database) as statements:
            found = await queue.find([call.id for call in calls])
        assert [found[call.id].payload == call.payload for call in calls] == [True] * 5
        assert len(statements) == 1 + 3, "their sizes, and two at a time"


async def test_a_call_that_cannot_be_read_is_told_and_not_found(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(url) as database:
        queue = SQLQueue(database, lambda: NOW)
        broken, whole = a_call(), a_call()
        for call in (broken, whole):
            await queue.push(call)
        change = update(messages).where(messages.c.id == broken.id).values(call="{")
        await database.transact(lambda it: it.execute(change))
        assert set(await queue.find([broken.id, whole.id])) == {whole.id}
        assert len([line for line in caplog.messages if "cannot be read" in line]) == 1
