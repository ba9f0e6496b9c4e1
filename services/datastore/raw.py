"""One statement on PostgreSQL that is a transaction by itself, past SQLAlchemy.

Around a statement of many rows SQLAlchemy takes longer than driver and server do for it, and a transaction
is two more round trips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy import PoolProxiedConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from services.datastore import failures
from services.datastore.failures import Meaning

PLANS = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
"""For each connection: statements go by an index, and meet rows in the order in which these are named.

A plan is kept with its prepared statement until the server analyses the table: one that was made while that
was small reads all of what has come since. (What costs as if forbidden would be compiled: no jit.)
"""
PLAN_KEPT = 5.0
"""Seconds after which the driver prepares a statement of ours, and the server plans it, anew."""
_REFUSED = (Meaning.AGAIN, Meaning.TAKEN, Meaning.INVALID)


async def run(
    engine: AsyncEngine, text: str, values: Sequence[Any], *, repeatable: bool = False
) -> list[Any] | None:
    """The rows that it answers, as asyncpg has them; None when it was refused, and has changed nothing.

    It is refused when a row is taken, when a value cannot be stored, and when others are in the way. When
    the connection breaks nobody knows: None, too, where it is *repeatable*, else the driver's exception.
    """
    connection = await _connected(engine)
    driver: Any = connection.driver_connection
    try:
        found: list[Any] = await driver.fetch(text, *values)
    except BaseException as exc:
        if not isinstance(exc, (asyncpg.PostgresError, ValueError)) or driver.is_closed():
            # In the middle of an answer, perhaps.
            connection.invalidate(exc)
        # Values that are none of its types the driver itself refuses.
        if isinstance(exc, ValueError) or (isinstance(exc, Exception) and _is_none(exc, repeatable)):
            return None
        raise
    finally:
        connection.close()
    return found


def _is_none(exc: Exception, repeatable: bool) -> bool:
    if not failures.known(exc):
        return False
    means = failures.meaning(exc)
    return means in _REFUSED or (repeatable and means is Meaning.LOST)


async def _connected(engine: AsyncEngine) -> PoolProxiedConnection:
    """A connection, in whose place a new one is when the server has closed it."""
    while True:
        connection = await engine.raw_connection()
        driver: Any = connection.driver_connection
        if not driver.is_closed():
            return connection
        connection.invalidate()
        connection.close()
