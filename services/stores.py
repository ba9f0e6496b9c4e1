"""The backing services of an API node, opened together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from services import logstore, queue, urls
from services.datastore import dialects
from services.datastore.database import Database, open_database
from services.datastore.dead_letters import SQLDeadLetters
from services.datastore.idempotency import SQLIdempotencyKeys
from services.datastore.outbox import SQLOutbox
from services.datastore.sql import SQLDatastore
from services.logstore import open_logstore
from services.logstore.sql import SQLLogStore
from services.queue import open_queue
from services.queue.server_clock import running_clock
from shared_models.call_interfaces import DeadLetters, IdempotencyKeys, Outbox
from shared_models.env import env
from shared_models.interfaces import Datastore, LogStore, MessageQueue

_SHARED_QUEUE = ("postgres", "mysql")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where the backing services are. URLs may have passwords."""

    datastore_url: str = env(
        "FN_DB_URL",
        "sqlite:///data/fn.db",
        "Where apps, functions, triggers and routes are kept: sqlite:///PATH (//// for an absolute path), "
        "postgres://USER:PASSWORD@HOST:PORT/DATABASE or mysql://USER:PASSWORD@HOST:PORT/DATABASE",
        parse=urls.one_of(dialects.SCHEMES),
        secret=True,
    )
    logstore_url: str = env(
        "FN_LOGSTORE_URL",
        "",
        "Where records of calls and their logs are kept: as FN_DB_URL, or "
        "s3://KEY:SECRET@HOST/REGION/BUCKET; empty: with the functions (FN_DB_URL); none: nowhere, "
        "calls run and leave no record",
        parse=logstore.known,
        secret=True,
    )
    queue_url: str = env(
        "FN_MQ_URL",
        "sqlite:///data/queue.db",
        "Where async calls wait: sqlite:///PATH (durable), redis://HOST:PORT/NUMBER, "
        "postgres:// or mysql:// as FN_DB_URL, or memory:// (lost when the node ends)",
        parse=urls.one_of(queue.SCHEMES),
        secret=True,
    )


@dataclass(frozen=True, slots=True)
class Stores:
    """What an API node stands on. All but log store and queue are in the datastore's database.

    *clock*: unix seconds that all nodes agree on, which their own clocks may not. *files*: which of
    "datastore", "log store" and "queue" are files; what they are asked is done in threads, to its end.
    """

    datastore: Datastore
    logstore: LogStore
    queue: MessageQueue
    dead_letters: DeadLetters
    idempotency_keys: IdempotencyKeys
    outbox: Outbox
    clock: Callable[[], float] = time.time
    files: frozenset[str] = frozenset()

    @classmethod
    def on(
        cls,
        database: Database,
        logstore: LogStore,
        queue: MessageQueue,
        clock: Callable[[], float] = time.time,
    ) -> Stores:
        """Those with *database* below the datastore."""
        return cls(
            datastore=SQLDatastore(database, clock),
            logstore=logstore,
            queue=queue,
            dead_letters=SQLDeadLetters(database, clock),
            idempotency_keys=SQLIdempotencyKeys(database, clock),
            outbox=SQLOutbox(database, clock),
            clock=clock,
        )


@asynccontextmanager
async def open_stores(settings: StoreSettings) -> AsyncIterator[Stores]:
    """All, ready to use; those with the datastore's URL share its database and its pool.

    They go by the time of the datastore's server, where it has one: records, leases and locks of nodes are
    compared.

    Raises ValueError that names the variable of a URL that is none of ours, StoreUnavailable or
    QueueUnavailable with one clear line when one cannot be used.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        database = await enter(open_database(settings.datastore_url))
        clock: Callable[[], float] = time.time
        if database.backend.time:
            clock = await enter(running_clock(database.server_time))
        kept: LogStore
        if settings.logstore_url in ("", settings.datastore_url):
            kept = SQLLogStore(database, clock)
        else:
            kept = await enter(open_logstore(settings.logstore_url, clock))
        stores = Stores.on(database, kept, await _queue(stack, settings, database), clock)
        yield replace(stores, files=_files(settings))


def _files(settings: StoreSettings) -> frozenset[str]:
    places = {
        "datastore": settings.datastore_url,
        "log store": settings.logstore_url or settings.datastore_url,
        "queue": settings.queue_url,
    }
    return frozenset(name for name, url in places.items() if url.startswith("sqlite"))


async def _queue(stack: AsyncExitStack, settings: StoreSettings, database: Database) -> MessageQueue:
    if settings.queue_url == settings.datastore_url and database.backend.scheme in _SHARED_QUEUE:
        from services.queue.sql import open_queue_on

        return await stack.enter_async_context(open_queue_on(database))
    return await stack.enter_async_context(open_queue(settings.queue_url))
