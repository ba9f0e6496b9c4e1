"""Background work that must not stop: it is begun again when it breaks, and the log says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from shared_models.background import beside

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds before work that broke is begun again."""


class Changes:
    """Wakes all who wait for a change: take ``next``, look, and wait for it when there is nothing to do."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def tell(self) -> None:
        """Something has changed."""
        told, self.next = self.next, asyncio.Event()
        told.set()


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
    async with beside(again_and_again(work, name), name):
        yield


async def first_of(*waits: Coroutine[Any, Any, object], timeout: float | None = None) -> None:
    """Returns when one of *waits* has ended, or after *timeout* seconds; the others are cancelled."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
