"""The log store: records of calls and their logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.datastore.database import open_database
from services.logstore.sql import SQLLogStore
from shared_models.interfaces import LogStore


@asynccontextmanager
async def open_logstore(url: str) -> AsyncIterator[LogStore]:
    """The log store at *url*; see ``open_database`` for URLs and errors."""
    async with open_database(url, "FN_LOGSTORE_URL") as database:
        yield SQLLogStore(database)
