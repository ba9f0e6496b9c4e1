"""Pages of what nobody holds in SQL queues, and leases of what is named: short ranges of an index each."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import open_database
from services.datastore.tables import messages
from services.queue.sql import SQLQueue
from tests.integration.query_plans import captured, plan_of
from tests.integration.sql_queues import NOW, filled_by
from tests.integration.sql_queues import fill as fill_with_leased

FULL = 6_000


async def fill(connection: AsyncConnection) -> None:
    """Calls of two functions among each other, some of them delayed, of three priorities."""
    rows = [
        {
            "id": f"{number:026}",
            "fn_id": ("full", "some")[number % 5 // 4],
            "rank": -(number % 3),
            "ready": int(number % 7 > 0),
            "pushed": NOW - 60,
            "free_at": NOW + (0 if number % 7 else 600),
            "attempt": 0,
            "token": "",
            "call": f'{{"id":"{number:026}"}}',
            "payload": b"x" * 100,
        }
        for number in range(FULL)
    ]
    await connection.execute(delete(messages))
    await connection.execute(insert(messages), rows)


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
@pytest.mark.parametrize("known", [True, False], ids=["analysed", "believed-empty"])
async def test_a_page_and_a_lease_by_name_read_what_they_answer_and_no_more(
    request: pytest.FixtureRequest, server: str, known: bool
) -> None:
    async def work(connection: AsyncConnection) -> None:
        await filled_by(fill, connection, known=known)

    async with open_database(str(request.getfixturevalue(server).url)) as database:
        await database.transact(work)
        queue = SQLQueue(database, lambda: NOW)
        with captured(database) as statements:
            first = await queue.waiting("full", "", 1_000)
            second = await queue.waiting("full", first[-1].place, 1_000)
            taken = await queue.reserve_named([one.call.id for one in second], 30)
        assert len({one.call.id for one in first + second}) == 2_000
        free = {one.call.id for one in second if int(one.call.id) % 7}
        assert {one.call.id for one in taken} == free
        await database.transact(fill)
        assert len(statements) >= 4
        for statement in statements:
            plan = await plan_of(database, statement)
            assert plan.seeks & {"fn_id", "id", "place"}, (statement, plan.said)
            assert not plan.wrong, (statement, plan.said)
            assert not re.search(r'"access_type": "(ALL|index)"', plan.said), (statement, plan.said)


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
async def test_pages_leave_out_what_is_held_and_have_what_is_due(
    request: pytest.FixtureRequest, server: str
) -> None:
    async with open_database(str(request.getfixturevalue(server).url)) as database:
        await fill_with_leased(database)
        queue: Any = SQLQueue(database, lambda: NOW)
        found, place = 0, ""
        while some := await queue.waiting("fn3", place, 7):
            found, place = found + len(some), some[-1].place
        assert found == (3_400 + 100 + 500) // 20
