"""Queues on PostgreSQL and MariaDB, and what their databases would do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import delete, insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database, open_database
from services.datastore.tables import messages

FREE, LEASED, DELAYED, DUE = 500, 6_000, 3_400, 100
NOW = 1_800_000_000.0
ANALYZE = {"postgresql": "ANALYZE messages", "mysql": "ANALYZE TABLE messages PERSISTENT FOR ALL"}


async def empty(url: str) -> None:
    """Removes what earlier tests left."""

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(delete(messages))

    async with open_database(url) as database:
        await database.transact(work)


async def analyze(connection: AsyncConnection) -> None:
    """Lets the planner know what is in the queue now."""
    await connection.execute(text(ANALYZE[connection.dialect.name]))


async def filled_by(
    fill: Callable[[AsyncConnection], Awaitable[None]], connection: AsyncConnection, *, known: bool
) -> None:
    """What *fill* puts into the queue, *known* to the planner, or believed to be nothing."""
    await connection.execute(delete(messages))
    # Statistics of an empty table: those of the moment before very much is pushed.
    await analyze(connection)
    await fill(connection)
    if known:
        await analyze(connection)


async def fill(database: Database) -> None:
    """Ten thousand messages: most are leased or delayed, and those stand before the free ones."""
    kinds = [(0, 300.0, "token")] * LEASED + [(0, 600.0, "")] * DELAYED + [(0, -1.0, "token")] * DUE
    rows: list[dict[str, Any]] = [
        {
            "id": f"{number:026}",
            "fn_id": f"fn{number % 20}",
            "rank": 0,
            "ready": ready,
            "pushed": NOW - 60,
            "free_at": NOW + later,
            "attempt": 0,
            "token": token,
            "call": "{}",
            "payload": b"",
        }
        for number, (ready, later, token) in enumerate([*kinds, *[(1, 0.0, "")] * FREE])
    ]

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(delete(messages))
        await connection.execute(insert(messages), rows)
        await analyze(connection)

    await database.transact(work)
