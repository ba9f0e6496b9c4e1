"""All that differs between the databases below the datastore and the log store.

A database is an engine that is opened its own way, the statement that begins a writing transaction,
and column types whose order is code point order. One more database is one more entry here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import String, Text, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.types import TypeEngine

from services import sqlite_file
from services.sqlite_file import CannotOpen
from shared_models.errors import StoreUnavailable

SCHEMES = ("sqlite",)
BEGIN = "fn_begin"
"""Execution option: the statement that opens a transaction; without it each statement is its own."""
_BEGIN_WRITE = "BEGIN IMMEDIATE"
_PRAGMAS = (
    f"PRAGMA busy_timeout={sqlite_file.BUSY_MILLIS}",
    # A commit survives a killed process, and the last ones may be lost with the machine's power:
    # the queue, which is synced, brings those calls back.
    "PRAGMA synchronous=NORMAL",
    "PRAGMA foreign_keys=ON",
)


def ordered(length: int) -> TypeEngine[str]:
    """Text that is compared byte by byte, so that it sorts in code point order.

    SQLite compares so by itself (BINARY, over UTF-8).
    """
    return String(length)


def long_text() -> TypeEngine[str]:
    """Text of any length that is never compared."""
    return Text()


async def open_engine(scheme: str, path: str) -> AsyncEngine:
    """An engine on the database, checked to be usable; raises StoreUnavailable with one clear line."""
    assert scheme in SCHEMES
    if path:
        try:
            await asyncio.to_thread(sqlite_file.prepare, path)
        except CannotOpen as exc:
            raise StoreUnavailable(f"Database: {exc}") from exc
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        poolclass=AsyncAdaptedQueuePool,
        # A database in memory lives as long as its one connection.
        pool_size=4 if path else 1,
        max_overflow=0,
        pool_timeout=30,
    )
    event.listen(engine.sync_engine, "connect", _connected)
    event.listen(engine.sync_engine, "begin", _begun)
    return engine


def for_writing() -> dict[str, Any]:
    """Execution options of a transaction that writes.

    SQLite takes the write lock at its begin: a transaction that reads first and is then refused the
    lock could only be given up.
    """
    return {BEGIN: _BEGIN_WRITE}


def _connected(connection: Any, _record: object) -> None:
    # The driver must not begin transactions on its own: it would do so late, and not around DDL.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begun(connection: Any) -> None:
    if statement := connection.get_execution_options().get(BEGIN):
        connection.exec_driver_sql(statement)
