"""The queues that the model runs on, each without a thread of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager

from services.queue import sqlite_schema
from services.queue.memory import MemoryQueue
from services.queue.sql import SQLQueue
from services.queue.sqlite import SQLiteQueue
from shared_models.interfaces import MessageQueue
from tests.model.inline_database import InlineDatabase

Clock = Callable[[], float]
Opener = Callable[[InlineDatabase, Clock], AbstractContextManager[MessageQueue]]


@contextmanager
def memory(database: InlineDatabase, clock: Clock) -> Iterator[MessageQueue]:
    """In memory."""
    yield MemoryQueue(clock)


@contextmanager
def embedded(database: InlineDatabase, clock: Clock) -> Iterator[MessageQueue]:
    """The embedded durable one, its file in memory; the loop does at once what is its thread's."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as file, ThreadPoolExecutor(1) as unused:
        sqlite_schema.make_table(file)
        yield SQLiteQueue(file, unused, clock)


@contextmanager
def on_sql(database: InlineDatabase, clock: Clock) -> Iterator[MessageQueue]:
    """That of PostgreSQL and MySQL, on the SQLite database of the other stores."""
    yield SQLQueue(database, clock)


QUEUES: dict[str, Opener] = {"memory": memory, "embedded": embedded, "sql": on_sql}
