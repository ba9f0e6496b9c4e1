"""The time of a server that several nodes share: their own clocks may be off, and leases are compared."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shared_models.background import beside
from shared_models.errors import FnError

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds after which the clocks are compared again."""


class ServerClock:
    """Unix seconds of the server, which *ask* answers; between two answers by the monotonic clock."""

    def __init__(self, ask: Callable[[], Awaitable[float]]) -> None:
        self._ask = ask
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    async def compare(self) -> None:
        """Asks the server; raises what asking raises."""
        before = time.monotonic()
        seconds = await self._ask()
        self._ahead = seconds - (before + time.monotonic()) / 2


@asynccontextmanager
async def running_clock(ask: Callable[[], Awaitable[float]]) -> AsyncIterator[ServerClock]:
    """A clock that is compared now, and again while the block runs; raises what *ask* raises."""
    clock = ServerClock(ask)
    await clock.compare()
    async with beside(_keep(clock), "server-clock"):
        yield clock


async def _keep(clock: ServerClock) -> None:
    while True:
        await asyncio.sleep(EVERY)
        try:
            await clock.compare()
        except FnError as exc:
            log.debug("the server's time is asked for later: %s", exc)
