"""The embedded durable queue: one SQLite file, which several processes may share."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from services import sqlite_file
from services.queue import messages, sqlite_schema
from services.queue.waiting import WaitingQueue
from services.sqlite_file import CannotOpen
from shared_models.call import Call, LeasedCall, LeaseKey
from shared_models.errors import Invalid, QueueUnavailable
from shared_models.interfaces import MessageQueue, QueueDepth, WaitingCall

log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

LOOK_EVERY = 1.0
"""Seconds after which a waiting reserve looks for what another process may have pushed."""
_IN_ONE_COMMIT = 256


class _Push:
    """An operation that those which stand beside it in a commit are done with."""

    def __init__(self, row: messages.Row) -> None:
        self.row = row

    def __call__(self, db: sqlite3.Connection) -> bool:
        """Whether it is new."""
        return messages.push(db, self.row)


@asynccontextmanager
async def open_sqlite_queue(path: str, clock: Callable[[], float] = time.time) -> AsyncIterator[MessageQueue]:
    """The queue in the file at *path*; raises QueueUnavailable with one clear line when it cannot be used."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="queue")
    loop = asyncio.get_running_loop()
    try:
        try:
            db = await loop.run_in_executor(thread, _open, path)
        except (CannotOpen, sqlite3.Error, ValueError) as exc:
            raise QueueUnavailable(f"Queue: {path}: {exc}") from exc
        queue = SQLiteQueue(db, thread, clock)
        try:
            yield queue
        finally:
            await queue.settle()
            await loop.run_in_executor(thread, db.close)
    finally:
        thread.shutdown()


def _open(path: str) -> sqlite3.Connection:
    sqlite_file.prepare(path)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA busy_timeout={sqlite_file.BUSY_MILLIS}")
    # A call that was answered with 202 is on the disk: every commit is synced.
    db.execute("PRAGMA synchronous=FULL")
    db.execute("BEGIN IMMEDIATE")
    try:
        sqlite_schema.make_table(db)
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


class SQLiteQueue(WaitingQueue):
    """One connection in one thread. What arrives while a commit is under way shares the next one.

    So a push costs one sync of the disk when it is alone, and a small part of one under load; an idle
    queue adds no delay.
    """

    def __init__(
        self, db: sqlite3.Connection, thread: ThreadPoolExecutor, clock: Callable[[], float]
    ) -> None:
        super().__init__(clock, LOOK_EVERY)
        self._db = db
        self._thread = thread
        self._todo: deque[tuple[Operation[Any], asyncio.Future[Any]]] = deque()
        self._committer: asyncio.Task[None] | None = None
        self._next = math.inf
        self._more = False
        """Whether the last reserve got all it asked for, so that there may be more."""

    async def push(self, call: Call) -> bool:
        try:
            row = messages.row(call, self._clock())
        except UnicodeEncodeError as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc
        pushed = await self._write(_Push(row))
        self._bell.ring(call.fn_id)
        return pushed

    async def reserve_named(self, call_ids: Sequence[str], ttl: float) -> list[LeasedCall]:
        take = partial(messages.take_named, call_ids=call_ids, now=self._clock(), ttl=ttl)
        return await self._unclaimed.leased(self._write(take))

    async def waiting(self, fn_id: str, after: str, limit: int) -> list[WaitingCall]:
        look = partial(messages.waiting, fn_id=fn_id, after=after, limit=limit, now=self._clock())
        return await self._read(look)

    async def extend(self, keys: Sequence[LeaseKey], ttl: float) -> list[str]:
        now = self._clock()
        lost = await self._write(partial(messages.extend, keys=keys, now=now, ttl=ttl))
        self._bell.ring()
        return lost

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        now = self._clock()
        await self._write(partial(messages.release, keys=keys, now=now))
        self._bell.ring()

    async def requeue(self, keys: Sequence[LeaseKey], delay: float) -> list[str]:
        now = self._clock()
        lost = await self._write(partial(messages.requeue, keys=keys, now=now, delay=delay))
        self._bell.ring()
        return lost

    async def delete(self, keys: Sequence[LeaseKey]) -> None:
        now = self._clock()
        await self._write(partial(messages.delete, keys=keys, now=now))

    async def holds(self, call_ids: Sequence[str]) -> set[str]:
        return await self._read(partial(messages.holds, call_ids=call_ids))

    async def find(self, call_ids: Sequence[str]) -> dict[str, Call]:
        return await self._read(partial(messages.find, call_ids=call_ids))

    async def depth(self, fn_id: str) -> QueueDepth:
        return await self._read(partial(messages.depth, fn_id=fn_id, now=self._clock()))

    async def depths(self) -> list[QueueDepth]:
        return await self._read(partial(messages.depths, now=self._clock()))

    async def settle(self) -> None:
        """Returns when everything asked for so far is on the disk."""
        await self._unclaimed.settle()
        while self._committer is not None:
            await asyncio.wait((self._committer,))

    async def _next_free(self) -> float:
        return self._next

    async def _take(self, limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
        if self._more and (taken := await self._lease(limit, ttl, without)):
            return taken
        # Looks without the write lock first: waiting runners must not queue up for it.
        look = partial(messages.look, now=self._clock(), without=without)
        free, self._next = await self._read(look)
        return await self._lease(limit, ttl, without) if free else []

    async def _lease(self, limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
        take = partial(messages.take, limit=limit, now=self._clock(), ttl=ttl, without=without)
        taken = await self._unclaimed.leased(self._write(take))
        self._more = len(taken) == limit
        return taken

    async def _read(self, operation: Operation[T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, operation, self._db)
        except sqlite3.Error as exc:
            raise _unavailable(exc) from exc
        except (UnicodeEncodeError, OverflowError) as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc

    async def _write(self, operation: Operation[T]) -> T:
        # Cancelled with the caller; the commit goes on.
        return await self._ask(operation)

    def _ask(self, operation: Operation[T]) -> asyncio.Future[T]:
        asked: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._todo.append((operation, asked))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit_all(), name="queue-commit")
        return asked

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._todo:
                batch = [self._todo.popleft() for _ in range(min(len(self._todo), _IN_ONE_COMMIT))]
                try:
                    operations = [operation for operation, _ in batch]
                    results = await loop.run_in_executor(self._thread, _commit, self._db, operations)
                except Exception as exc:
                    error = _unavailable(exc)
                    for _, asked in batch:
                        _fail(asked, error)
                else:
                    for (_, asked), result in zip(batch, results, strict=True):
                        if isinstance(result, Exception):
                            _fail(asked, result)
                        elif not asked.done():
                            asked.set_result(result)
        finally:
            self._committer = None


def _commit(db: sqlite3.Connection, operations: list[Operation[Any]]) -> list[Any]:
    db.execute("BEGIN IMMEDIATE")
    try:
        results: list[Any] = []
        for together, some in itertools.groupby(operations, lambda one: isinstance(one, _Push)):
            if together:
                results += messages.push_all(db, [one.row for one in some if isinstance(one, _Push)])
            else:
                results += [_outcome(operation, db) for operation in some]
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    return results


def _outcome(operation: Operation[Any], db: sqlite3.Connection) -> Any:
    """What *operation* gives; a value that SQLite cannot store is its own error, not that of the batch."""
    try:
        return operation(db)
    except (UnicodeEncodeError, OverflowError) as exc:
        return Invalid(f"A value cannot be stored: {exc}")


def _fail(asked: asyncio.Future[Any], error: Exception) -> None:
    # Whoever asked may have been cancelled meanwhile.
    if not asked.done():
        asked.set_exception(error)


def _unavailable(exc: Exception) -> QueueUnavailable:
    log.error("the queue's database failed: %s", exc)
    return QueueUnavailable(detail=str(exc))
