"""A SQLite database in memory for the SQL stores, without a thread: every transaction is one step.

``services.datastore.database.Database`` waits for a thread, which ends when it likes. The stores on top are
the real ones.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import StaticPool

from services.datastore.database import Database
from services.datastore.dialects import Backend
from services.datastore.direct import at_once, direct
from services.datastore.tables import metadata

T = TypeVar("T")


@cache
def _engine() -> tuple[Engine, sqlite3.Connection, bytes]:
    """One for all, since it remembers the statements that it has compiled; and an empty schema."""
    raw = sqlite3.connect(":memory:", isolation_level=None)
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    # The driver has ideas of its own when a transaction begins.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.begin() as connection:
        metadata.create_all(connection)
    return engine, raw, raw.serialize()


class InlineDatabase(Database):
    """Empty, with the schema in place. One at a time: the next one empties it."""

    def __init__(self) -> None:
        super().__init__(Backend(scheme="sqlite", engine=create_async_engine("sqlite+aiosqlite://")))
        self._inline, raw, empty = _engine()
        raw.deserialize(empty)

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await self._transaction(work)

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            return await self._transaction(work)
        except IntegrityError:
            # Somebody was faster; once more, the checks of *work* see it.
            return await self._transaction(work)

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        await asyncio.sleep(0)
        with self._inline.begin() as connection:
            return at_once(work(direct(connection)))

    def rows(self, statement: Any) -> list[dict[str, Any]]:
        """What a query finds, for a test's own look."""
        with self._inline.begin() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]
