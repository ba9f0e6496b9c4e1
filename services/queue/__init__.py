"""The message queue: async calls in order, handed out on leases."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from services import urls
from services.queue.memory import MemoryQueue
from shared_models.interfaces import MessageQueue

SCHEMES = ("sqlite", "memory", "postgres", "mysql", "redis")
VARIABLE = "FN_MQ_URL"


@asynccontextmanager
async def open_queue(url: str, *, clock: Callable[[], float] | None = None) -> AsyncIterator[MessageQueue]:
    """The queue at *url*.

    ``sqlite:///path`` (embedded and durable), ``memory://`` (gone with the process),
    ``postgres://``, ``mysql://`` or ``redis://``. *clock* is for tests: without it the embedded
    queues go by this machine's clock, and the others by their server's, which all nodes share.

    Raises ValueError for a URL that is none of these or has bad parameters, QueueUnavailable with one
    clear line when the backend cannot be used.
    """
    address = urls.parse(url, VARIABLE, SCHEMES)
    if address.scheme == "memory" or (address.scheme == "sqlite" and not address.path):
        yield MemoryQueue(clock or time.time)
        return
    async with _opened(address, url, clock) as queue:
        yield queue


def _opened(
    address: urls.Address, url: str, clock: Callable[[], float] | None
) -> AbstractAsyncContextManager[MessageQueue]:
    # Imported here: nobody needs the libraries of backends that are not used.
    match address.scheme:
        case "sqlite":
            from services.queue.sqlite import open_sqlite_queue

            return open_sqlite_queue(address.path, clock or time.time)
        case "redis":
            from services.queue.redis import open_redis_queue

            return open_redis_queue(address, clock)
        case _:
            from services.queue.sql import open_sql_queue

            return open_sql_queue(url, clock)
