"""One statement on PostgreSQL that is a transaction by itself, in the driver's own words.

A transaction is two more round trips, and SQLAlchemy takes longer to put a statement of many rows together
than driver and server do for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.datastore import failures
from services.datastore.failures import Meaning

PLANS = "; ".join(
    [
        *(f"SET enable_{way} = off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin")),
        "SET jit = off",
    ]
)
"""For each connection: statements go by an index, and meet rows in the order in which these are named.

A plan is kept with its prepared statement until the server analyses the table: one that was made while that
was small reads all of what has come since. (What costs as if forbidden would be compiled: no jit.)
"""
_REFUSED = (Meaning.AGAIN, Meaning.TAKEN, Meaning.INVALID)


async def run(
    engine: AsyncEngine, text: str, values: Sequence[Any], *, repeatable: bool = False
) -> list[Any] | None:
    """The rows that it answers; None when it was refused, and has changed nothing.

    It is refused when a row is taken, when a value cannot be stored, and when others are in the way. When
    the connection breaks nobody knows: None, too, where it is *repeatable*, else the driver's exception.
    """
    try:
        async with _connected(engine) as connection:
            found = await connection.exec_driver_sql(text, tuple(values))
            return list(found.all()) if found.returns_rows else []
    except Exception as exc:
        if not failures.known(exc):
            raise
        means = failures.meaning(exc)
        if means in _REFUSED or (repeatable and means is Meaning.LOST):
            return None
        raise


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection, in whose place a new one is when the server has closed it."""
    while True:
        async with engine.connect() as connection:
            pooled = await connection.get_raw_connection()
            driver: Any = pooled.driver_connection
            if driver.is_closed():
                await connection.invalidate()
                continue
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")
            return
