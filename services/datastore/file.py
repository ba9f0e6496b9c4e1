"""A SQLite file: threads that read it, and one that writes; a read or a transaction is one trip there.

Readers of a file with a write-ahead log wait for no writer. In one process writers take turns in their
thread, which is fair; SQLite's own lock, by which processes take turns, is polled.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from services import sqlite_file
from services.datastore import bulk
from services.datastore.bulk import Rows
from services.datastore.direct import at_once, direct
from services.datastore.trips import Trips

T = TypeVar("T")

_READERS = 4
"""Threads that read at once, at most: a long query keeps nobody else waiting."""
PRAGMAS = (
    f"PRAGMA busy_timeout={sqlite_file.BUSY_MILLIS}",
    # A commit survives a killed process, and the last ones may be lost with the machine's power:
    # the queue, which is synced, brings those calls back.
    "PRAGMA synchronous=NORMAL",
    "PRAGMA foreign_keys=ON",
)


class _Whole(sqlite3.Cursor):
    """Reads all rows at once: one that is not read to its end would hold the file as it was."""

    _rows: list[Any]

    def execute(self, statement: str, parameters: Any = ()) -> _Whole:
        super().execute(statement, parameters)
        self._rows = super().fetchall()
        self._rows.reverse()
        return self

    def fetchone(self) -> Any:
        return self._rows.pop() if self._rows else None

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        return [self._rows.pop() for _ in range(min(size or 1, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows[::-1], []
        return rows


class _WholeConnection(sqlite3.Connection):
    def cursor(self, factory: Any = _Whole) -> Any:
        return super().cursor(factory)


@dataclass(frozen=True, slots=True)
class _Hand:
    """One connection to the file, for SQLAlchemy and without it. It begins no transactions by itself."""

    connection: Connection
    works: AsyncConnection
    driver: sqlite3.Connection


class File:
    """The file at *path*, which is there. Safe concurrently; *unheard* is told failures nobody waits for."""

    def __init__(self, path: str, unheard: Callable[[BaseException], None]) -> None:
        # Threads open it when they begin, wherever the process works by then.
        path = str(Path(path).absolute())
        # One for all connections, since it remembers the statements that it has compiled.
        self._engine = create_engine(
            "sqlite://", creator=partial(_connect, path), poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        self._readers = Trips("sqlite-read", self._take, _let_go, unheard, _READERS)
        self._writer = Trips("sqlite-write", self._take, _let_go, unheard)

    def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> asyncio.Future[T]:
        """What *work* answers, whose statements only read."""
        return self._readers.ask(lambda hand: at_once(work(hand.works)))

    def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> asyncio.Future[T]:
        """What *work* answers, in one transaction with the file's write lock; its exceptions roll back."""
        return self._writer.ask(lambda hand: _transaction(hand, lambda: at_once(work(hand.works))))

    def trip(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """As ``transact``, without SQLAlchemy."""
        return self._writer.ask(lambda hand: _transaction(hand, lambda: work(hand.driver)))

    def statement(self, text: str, values: Sequence[Any]) -> asyncio.Future[list[Any]]:
        """The rows that one statement answers, which is a transaction by itself."""
        return self._writer.ask(lambda hand: hand.driver.execute(text, values).fetchall())

    def insert(self, rows: Rows) -> asyncio.Future[bool]:
        """Inserts all of *rows* in one transaction; False, and none, when one of them is there."""
        statements = [one for table, some in rows for one in bulk.insertions(table, some)]

        def insert(hand: _Hand) -> None:
            for text, values in statements:
                hand.driver.execute(text, values)

        def whether_new(hand: _Hand) -> bool:
            try:
                if len(statements) == 1:
                    insert(hand)  # a transaction by itself
                else:
                    _transaction(hand, lambda: insert(hand))
            except sqlite3.IntegrityError:
                return False
            return True

        return self._writer.ask(whether_new)

    async def close(self) -> None:
        """When nothing is under way any more. Idempotent."""
        await self._writer.close()
        await self._readers.close()

    def _take(self) -> _Hand:
        connection = self._engine.connect()
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        return _Hand(connection, direct(connection), driver)


def _let_go(hand: _Hand) -> None:
    hand.connection.close()


def _connect(path: str) -> sqlite3.Connection:
    driver = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=_WholeConnection)
    for pragma in PRAGMAS:
        driver.execute(pragma)
    return driver


def _transaction(hand: _Hand, work: Callable[[], T]) -> T:
    # The lock first: a transaction that reads first and is then refused it could only be given up.
    hand.driver.execute("BEGIN IMMEDIATE")
    try:
        answer = work()
        hand.driver.execute("COMMIT")
    except BaseException:
        if hand.driver.in_transaction:
            hand.driver.execute("ROLLBACK")
        raise
    return answer
