"""Work on a database that never waits: the same work as on a server's connection, done at once.

Works are coroutines for the sake of servers. On a SQLite file, whose answers come from the memory of this
process, they are run to their end in one go, in a thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class _Direct:
    """An ``AsyncConnection`` as far as works know it; nothing in it waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def dialect(self) -> Dialect:
        return self._connection.dialect

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.execute(statement, parameters)

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> Any:
        return self._connection.exec_driver_sql(statement, parameters)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.scalar(statement, parameters)

    async def scalars(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.scalars(statement, parameters)

    async def run_sync(self, work: Callable[..., T], *args: Any) -> T:
        return work(self._connection, *args)


def direct(connection: Connection) -> AsyncConnection:
    """*connection* for works that await it."""
    return cast("AsyncConnection", _Direct(connection))


def at_once(work: Awaitable[T]) -> T:
    """What *work* answers, which waits for nothing but a direct connection; else AssertionError."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as done:
        return cast("T", done.value)
    steps.close()
    raise AssertionError("work on a database waited for something else than the database")
