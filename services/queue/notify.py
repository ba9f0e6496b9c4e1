"""PostgreSQL's LISTEN and NOTIFY: every node hears at once when a call may have become free."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

log = logging.getLogger(__name__)

CHANNEL = "fn_queue"
"""Channels belong to a database: queues of other databases of the server are not heard."""
QUIET = 20.0
"""Seconds after which a silent connection is asked whether it is there."""
_SHORTEST, _LONGEST = 0.05, 5.0
_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncio.TimeoutError)


@asynccontextmanager
async def hearing(connect: Callable[[], Awaitable[Any]], ring: Callable[[], None]) -> AsyncIterator[None]:
    """Calls *ring* for each notification while the block runs, on a connection that *connect* opens.

    A connection that is lost is opened anew until it can be, and then rings too, since something may
    have been missed. It is tried the first time in the background, as every other time.
    """
    task = asyncio.create_task(_hear_forever(connect, ring), name="queue-notify")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _hear_forever(connect: Callable[[], Awaitable[Any]], ring: Callable[[], None]) -> None:
    pause = _SHORTEST
    while True:
        try:
            connection = await connect()
        except _FAILURES as exc:
            log.debug("cannot listen for queued calls yet: %s", type(exc).__name__)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)
            continue
        try:
            pause = _SHORTEST
            await _hear(connection, ring)
        except _FAILURES as exc:
            log.warning("the queue's notifications are lost, and listened for anew: %s", type(exc).__name__)
        finally:
            connection.terminate()
        await asyncio.sleep(pause)


async def _hear(connection: Any, ring: Callable[[], None]) -> None:
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    await connection.add_listener(CHANNEL, lambda *_: ring())
    ring()
    while not lost.is_set():
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(lost.wait(), QUIET)
            break
        await connection.execute("SELECT 1")
    raise ConnectionResetError
