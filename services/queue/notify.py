"""PostgreSQL's LISTEN and NOTIFY: every node hears at once when a call may have become free."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from shared_models.background import beside

log = logging.getLogger(__name__)

CHANNEL = "fn_queue"
"""Channels belong to a database: queues of other databases of the server are not heard."""
QUIET = 20.0
"""Seconds after which a silent connection is asked whether it is there."""
_SHORTEST, _LONGEST = 0.05, 5.0
_FAILURES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


@asynccontextmanager
async def hearing(
    connect: Callable[[], Awaitable[Any]], ring: Callable[[str | None], None]
) -> AsyncIterator[None]:
    """Calls *ring* for each notification while the block runs, on a connection that *connect* opens.

    With the id of the function that it is about, or None when it may be any. A connection that is lost is
    opened anew until it can be, and then rings too, since something may have been missed. It is tried the
    first time in the background, as every other time.
    """
    listener = _Listener(connect, ring)
    async with beside(listener.run(), "queue-notify"):
        try:
            yield
        finally:
            listener.closing = True


class _Listener:
    """*closing* says what a cancellation may fail to: the driver can turn one into another error."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], ring: Callable[[str | None], None]) -> None:
        self._connect = connect
        self._ring = ring
        self.closing = False

    async def run(self) -> None:
        pause = _SHORTEST
        while not self.closing:
            try:
                connection = await self._connect()
            except _FAILURES as exc:
                if self.closing:
                    return
                log.debug("cannot listen for queued calls yet: %s", type(exc).__name__)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST)
                continue
            pause = _SHORTEST
            try:
                await self._hear(connection)
            except _FAILURES as exc:
                if not self.closing:
                    log.warning("the queue's notifications are lost: %s", type(exc).__name__)
            finally:
                connection.terminate()

    async def _hear(self, connection: Any) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, lambda *heard: self._ring(heard[-1] or None))
        self._ring(None)
        while not lost.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(lost.wait(), QUIET)
                break
            await connection.execute("SELECT 1")
        raise ConnectionResetError
