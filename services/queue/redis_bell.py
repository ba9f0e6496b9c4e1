"""Hears from a Redis server when calls may have become free, whichever node freed them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Connection

from services.queue.redis_errors import DRIVER_ERRORS, cause
from services.queue.redis_settings import RedisSettings
from shared_models.background import beside

log = logging.getLogger(__name__)

QUIET = 20.0
"""Seconds without a word after which the server is asked whether it is there."""
_SHORTEST, _LONGEST = 0.05, 5.0


@asynccontextmanager
async def hearing_bell(settings: RedisSettings, ring: Callable[[str | None], None]) -> AsyncIterator[None]:
    """Calls *ring* for each message on the queue's channel while the block runs.

    With the id of the function that it is about, or None when it may be any. A connection that is lost is
    opened anew until it can be, and then rings too, since something may have been missed. Raises the
    driver's exceptions when the first one cannot be opened.
    """
    listener = _Listener(settings, ring)
    await listener.subscribe()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(listener.close)
        await stack.enter_async_context(beside(listener.run(), "redis-bell"))
        stack.callback(listener.leave)
        yield


class _Listener:
    def __init__(self, settings: RedisSettings, ring: Callable[[str | None], None]) -> None:
        self._settings = settings
        self._channel = f"{settings.base}bell"
        self._ring = ring
        self._connection: Connection | None = None
        # Before Python 3.12, a task that is cancelled within the driver may not notice.
        self._leaving = False

    def leave(self) -> None:
        """Nothing is heard any more."""
        self._leaving = True

    async def run(self) -> None:
        while not self._leaving:
            try:
                await self._hear()
            except DRIVER_ERRORS as exc:
                log.warning("the queue's Redis server is lost, and tried again: %s", cause(exc))
            await self._return()
            log.info("the queue's Redis server is back")
            self._ring(None)

    async def subscribe(self) -> None:
        connection = self._connection = self._settings.connection()
        try:
            async with asyncio.timeout(self._settings.patience):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("SUBSCRIBE", self._channel)
                await connection.read_response()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._connection:
            await self._connection.disconnect(nowait=True)

    async def _hear(self) -> None:
        connection = self._connection
        assert connection is not None
        while not self._leaving:
            heard = await connection.read_response(timeout=QUIET)
            if heard is None:
                await connection.send_command("PING")
                heard = await connection.read_response(timeout=self._settings.timeout)
            if heard is None:
                raise TimeoutError
            if heard[0] == b"message":
                self._ring(heard[2].decode() or None)

    async def _return(self) -> None:
        pause = _SHORTEST
        while not self._leaving:
            await self.close()
            try:
                return await self.subscribe()
            except DRIVER_ERRORS as exc:
                log.debug("the queue's Redis server is still lost: %s", cause(exc))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)
