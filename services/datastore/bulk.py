"""Many new rows at once in a SQLite file: one trip to one thread for a whole transaction.

SQLAlchemy takes a trip to the driver's thread for every statement, cursor, begin and commit. Each is a fight
for the interpreter with an event loop that answers thousands of calls a second, and costs that loop more than
SQLite takes to store the rows. Statements take rows by the dozen for the same reason.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Table

from services import sqlite_file

_PORTIONS = (64, 8, 1)
"""Rows of one statement: few numbers, so that prepared statements are found again."""
PRAGMAS = (
    f"PRAGMA busy_timeout={sqlite_file.BUSY_MILLIS}",
    # A commit survives a killed process, and the last ones may be lost with the machine's power:
    # the queue, which is synced, brings those calls back.
    "PRAGMA synchronous=NORMAL",
    "PRAGMA foreign_keys=ON",
)

Row = tuple[Any, ...]
"""Values in the order of a table's columns, as the driver takes them."""
Rows = Sequence[tuple[Table, Sequence[Row]]]


T = TypeVar("T")
Item = TypeVar("Item")


class Bulk:
    """Of the file at *path*. One transaction at a time, which is the caller's to see to."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bulk")
        self._db: sqlite3.Connection | None = None

    async def insert(self, rows: Rows) -> bool:
        """Inserts all of *rows*, in the order given; False when one of them is there: then none is inserted.

        Raises sqlite3.Error, and UnicodeEncodeError or OverflowError for what cannot be stored.
        """

        def work(db: sqlite3.Connection) -> None:
            for table, some in rows:
                insert(db, table, some)

        try:
            await self.run(work)
        except sqlite3.IntegrityError:
            return False
        return True

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What *work* answers, in the thread and in one transaction; its exceptions roll back and pass."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def close(self) -> None:
        """When nothing is under way any more. Idempotent."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._db:
            self._db.close()
            self._db = None

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._db is None:
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            for pragma in PRAGMAS:
                self._db.execute(pragma)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            answer = work(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return answer


def insert(db: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> None:
    """Inserts *rows*; raises sqlite3.IntegrityError when one of them is there."""
    for portion in in_portions(rows):
        db.execute(_statement(table, len(portion)), list(itertools.chain.from_iterable(portion)))


def in_portions(rows: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """*rows*, as many at a time as one statement takes: few different numbers."""
    start = 0
    for most in _PORTIONS:
        while len(rows) - start >= most:
            yield rows[start : start + most]
            start += most


@functools.cache
def _statement(table: Table, rows: int) -> str:
    names = [column.name for column in table.columns]
    row = f"({', '.join('?' * len(names))})"
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"
