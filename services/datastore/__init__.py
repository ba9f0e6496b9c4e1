"""The datastore: apps, functions, triggers, routes and the registry of runner nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.datastore.database import open_database
from services.datastore.sql import SQLDatastore
from shared_models.interfaces import Datastore


@asynccontextmanager
async def open_datastore(url: str) -> AsyncIterator[Datastore]:
    """The datastore at *url*; see ``open_database`` for URLs and errors."""
    async with open_database(url) as database:
        yield SQLDatastore(database)
