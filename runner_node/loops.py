"""Background work that must not stop: it is begun again when it breaks, and the log says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds before work that broke is begun again."""


async def again_and_again(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Runs *work*, which is endless by itself; what it raises is our bug, and no reason to stop."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s broke down and is begun again", name)
            await asyncio.sleep(PAUSE)


@asynccontextmanager
async def looping(work: Callable[[], Awaitable[None]], name: str) -> AsyncIterator[None]:
    """*work* in the background for the time of the block."""
    task = asyncio.create_task(again_and_again(work, name), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
