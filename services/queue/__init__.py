"""The message queue: async calls in order, handed out on leases."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services import urls
from services.queue.memory import MemoryQueue
from services.queue.sqlite import open_sqlite_queue
from shared_models.interfaces import MessageQueue

SCHEMES = ("sqlite", "memory")


@asynccontextmanager
async def open_queue(url: str, *, clock: Callable[[], float] = time.time) -> AsyncIterator[MessageQueue]:
    """The queue at *url*: ``sqlite:///path`` (embedded and durable) or ``memory://`` (gone with the process).

    Raises ValueError for a URL that is neither, QueueUnavailable with one clear line when the file
    cannot be used.
    """
    scheme, path = urls.parse(url, "FN_MQ_URL", SCHEMES)
    if scheme == "memory" or not path:
        yield MemoryQueue(clock)
        return
    async with open_sqlite_queue(path, clock) as queue:
        yield queue
