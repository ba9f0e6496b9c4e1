"""The log store: records of calls and their logs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services import urls
from services.datastore.database import open_database
from services.logstore.none import NoLogStore
from services.logstore.sql import SQLLogStore
from shared_models.interfaces import LogStore

SCHEMES = ("sqlite", "postgres", "mysql", "s3")
VARIABLE = "FN_LOGSTORE_URL"
NONE = "none"


def known(url: str) -> str:
    """A parser of the setting: ``none``, or a URL that ``open_logstore`` can read."""
    return url if url == NONE else urls.one_of(SCHEMES)(url)


@asynccontextmanager
async def open_logstore(url: str, clock: Callable[[], float] = time.time) -> AsyncIterator[LogStore]:
    """The log store at *url*: a database (see ``open_database``), ``s3://...``, or ``none``.

    Raises ValueError for a URL that is none of ours, StoreUnavailable with one clear line when the
    backend cannot be used.
    """
    if url == NONE:
        yield NoLogStore()
        return
    address = urls.parse(url, VARIABLE, SCHEMES)
    if address.scheme == "s3":
        # Imported here: its library is large, and most nodes do not use it.
        from services.logstore.s3 import open_s3_logstore

        async with open_s3_logstore(address, clock) as store:
            yield store
        return
    async with open_database(url, VARIABLE) as database:
        yield SQLLogStore(database, clock)
