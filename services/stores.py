"""The three backing services of an API node, opened together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services import urls
from services.datastore import dialects
from services.datastore.database import open_database
from services.datastore.sql import SQLDatastore
from services.logstore import open_logstore
from services.logstore.sql import SQLLogStore
from services.queue import SCHEMES, open_queue
from shared_models.env import env
from shared_models.interfaces import Datastore, LogStore, MessageQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where the backing services are. URLs may have passwords."""

    datastore_url: str = env(
        "FN_DB_URL",
        "sqlite:///data/fn.db",
        "Where apps, functions, triggers and routes are kept: sqlite:///PATH (//// for an absolute path)",
        parse=urls.one_of(dialects.SCHEMES),
        secret=True,
    )
    logstore_url: str = env(
        "FN_LOGSTORE_URL",
        "",
        "Where records of calls and their logs are kept; empty: with the functions (FN_DB_URL)",
        parse=urls.one_of(dialects.SCHEMES),
        secret=True,
    )
    queue_url: str = env(
        "FN_MQ_URL",
        "sqlite:///data/queue.db",
        "Where async calls wait: sqlite:///PATH (durable), or memory:// (lost when the node ends)",
        parse=urls.one_of(SCHEMES),
        secret=True,
    )


@dataclass(frozen=True, slots=True)
class Stores:
    """What an API node stands on."""

    datastore: Datastore
    logstore: LogStore
    queue: MessageQueue


@asynccontextmanager
async def open_stores(settings: StoreSettings) -> AsyncIterator[Stores]:
    """All three, ready to use; a log store with the datastore's URL shares its database.

    Raises ValueError that names the variable of a URL that is none of ours, StoreUnavailable or
    QueueUnavailable with one clear line when one cannot be used.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        database = await enter(open_database(settings.datastore_url))
        logstore: LogStore
        if settings.logstore_url in ("", settings.datastore_url):
            logstore = SQLLogStore(database)
        else:
            logstore = await enter(open_logstore(settings.logstore_url))
        queue = await enter(open_queue(settings.queue_url))
        yield Stores(SQLDatastore(database), logstore, queue)
