"""A SQL database with its schema in place: reads, transactions, and no driver's exception leaves."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services import urls
from services.datastore import dialects, failures, migrate, raw
from services.datastore.bulk import Rows
from services.datastore.dialects import Backend
from services.datastore.failures import Meaning
from services.datastore.file import File
from shared_models.errors import FnError, Invalid, StoreUnavailable

log = logging.getLogger(__name__)
# A connection that cannot even be closed is gone all the same, and what it was for has been told.
logging.getLogger("sqlalchemy.pool.impl.AsyncAdaptedQueuePool").addFilter(
    lambda record: not record.getMessage().startswith("Exception ")
)

T = TypeVar("T")
Asked = TypeVar("Asked")

_TRIES = 5
_PAUSE = 0.02
_CANCELS = 5
_CANCEL_AGAIN = 0.5
"""Seconds after which work that was cancelled and still goes on is cancelled again."""
_READ_AGAIN = (Meaning.LOST, Meaning.AGAIN)


class Database:
    """What the SQL stores stand on. Safe concurrently."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine = backend.engine
        self._file = File(backend.file, _tell_unheard) if backend.file else None
        # Of a database in memory, which has one connection.
        self._writing = asyncio.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._told = ""

    @property
    def backend(self) -> Backend:
        """The engine below, and how one works with it."""
        return self._backend

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs *work*, whose statements only read, each of them a transaction of its own.

        *work* awaits nothing but its connection. It runs once more when that turns out to be dead.
        """
        if self._file:
            return await self._asked(self._file.read, work)

        async def reading() -> T:
            async with self._engine.connect() as raw:
                connection = await raw.execution_options(**self._backend.reading)
                return await work(connection)

        async def persistent() -> T:
            try:
                return await reading()
            except Exception as exc:
                if not failures.known(exc) or failures.meaning(exc) not in _READ_AGAIN:
                    raise
            return await reading()

        return await self._to_the_end(persistent())

    async def server_time(self) -> float:
        """The server's own unix seconds, where ``backend.time`` asks for them."""
        query = text(self._backend.time)
        found = await self.read(lambda connection: connection.execute(query))
        return float(found.scalar_one())

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs *work* in one transaction and commits; its exceptions roll back and pass.

        *work* awaits nothing but its connection. A broken constraint
        means that somebody was faster: *work* runs again, and its own checks, which see the winner now,
        name what is taken. It also runs again after a deadlock, and when the connection broke before the
        commit. A commit without an answer may have happened: that is StoreUnavailable, and whoever asked
        repeats what may be repeated. Nobody is faster in a SQLite file, whose write lock the transaction has.
        """
        if self._file:
            return await self._asked(self._file.transact, work)

        async def writing() -> T:
            for left in reversed(range(_TRIES)):
                committing = False
                try:
                    async with self._turn(), self._engine.connect() as raw:
                        connection = await raw.execution_options(**self._backend.writing)
                        async with connection.begin():
                            result = await work(connection)
                            committing = True
                        return result
                except Exception as exc:
                    means = failures.meaning(exc) if failures.known(exc) else None
                    lost = means is Meaning.LOST and not committing
                    if not left or not (lost or means in (Meaning.AGAIN, Meaning.TAKEN)):
                        raise
                if means is not Meaning.TAKEN:
                    # Those that got in each other's way must not meet again.
                    await asyncio.sleep(random.uniform(0, _PAUSE * (_TRIES - left)))
            raise AssertionError("unreachable")

        return await self._to_the_end(writing())

    async def insert_at_once(self, rows: Rows) -> bool:
        """Inserts new *rows* in one transaction, in the order given, where the database has a quick way.

        False where it has none, and when one of them is there: then nothing is inserted.
        """
        return await self._asked(self._file.insert, rows) if self._file else False

    @property
    def has_trips(self) -> bool:
        """Whether the database is a file for which ``trip`` is the quick way."""
        return self._file is not None

    async def trip(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As ``transact`` in a SQLite file, without SQLAlchemy."""
        assert self._file is not None, "only for a file"
        return await self._asked(self._file.trip, work)

    async def statement(self, text: str, values: Sequence[Any]) -> list[Any]:
        """The rows that one statement answers in a SQLite file, which is a transaction by itself."""
        assert self._file is not None, "only for a file"
        return await self._asked(partial(self._file.statement, text), values)

    @property
    def has_arrays(self) -> bool:
        """Whether the database is a server that takes many rows as arrays, for which see ``at_once``."""
        return self._backend.scheme == "postgres"

    async def at_once(
        self, text: str, values: Sequence[Any], *, repeatable: bool = False
    ) -> list[Any] | None:
        """The rows that one statement answers on PostgreSQL; None when it was refused: see ``raw.run``."""
        return await self._to_the_end(raw.run(self._engine, text, values, repeatable=repeatable))

    async def _asked(self, ask: Callable[[Asked], asyncio.Future[T]], asked: Asked) -> T:
        """What the file answers; it goes on when the caller is cancelled."""
        self._refuse_if_closed()
        with self._mapped():
            result = await ask(asked)
        self._told = ""
        return result

    async def close(self) -> None:
        """Takes nothing new, and returns when nothing is under way any more."""
        self._closed = True
        while self._under_way:
            await asyncio.wait(self._under_way)
        if self._file:
            await self._file.close()
        await self._engine.dispose()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("The database is closed: the node is stopping")

    def _turn(self) -> AbstractAsyncContextManager[Any]:
        return self._writing if self._backend.turns else nullcontext()

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits *work*, which goes on when the caller is cancelled.

        A connection that is left in the middle of a statement can only be thrown away, and with it
        a database in memory.
        """
        if self._closed:
            work.close()
        self._refuse_if_closed()
        task = asyncio.create_task(self._in_time(work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            with self._mapped():
                result = await asyncio.shield(task)
            self._told = ""
            return result
        except asyncio.CancelledError:
            task.add_done_callback(_unheard)
            raise

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """*work*; raises TimeoutError when it takes too long."""
        # A statement of SQLite ends by itself (``busy_timeout``).
        if self._backend.turns:
            return await work
        running = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({running}, timeout=self._backend.timeout)
            # Once is not enough: a pool whose connection comes in the same moment goes on with it, and a
            # driver may wait once more for a server that is silent, to end a transaction.
            for _ in range(_CANCELS):
                if done:
                    break
                running.cancel()
                done, _ = await asyncio.wait({running}, timeout=_CANCEL_AGAIN)
        finally:
            running.cancel()
        if not done:
            running.add_done_callback(_unheard)
        if not done or running.cancelled():
            raise TimeoutError
        return running.result()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (UnicodeEncodeError, OverflowError) as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc
        except Exception as exc:
            if not failures.known(exc):
                raise
            words = failures.words(exc)
            if failures.meaning(exc) is Meaning.INVALID:
                raise Invalid(f"A value cannot be stored: {words}") from exc
            # Once, not for each of the many that ask until the database is well again.
            log.log(logging.DEBUG if words == self._told else logging.ERROR, "the database failed: %s", words)
            self._told = words
            raise StoreUnavailable(detail=type(exc).__name__) from exc


@asynccontextmanager
async def open_database(url: str, variable: str = "FN_DB_URL") -> AsyncIterator[Database]:
    """The database at *url* (``sqlite:///path``, ``sqlite://`` in memory), brought to our schema.

    Raises ValueError for a URL that is none of ours (it names *variable*), StoreUnavailable with one
    clear line when the database cannot be used or has a newer schema than this version knows.
    """
    async with open_unmigrated(url, variable) as backend:
        database = Database(backend)
        try:
            with explained(url, variable, backend.port):
                await migrate.prepare(backend)
            yield database
        finally:
            await database.close()


@asynccontextmanager
async def open_unmigrated(url: str, variable: str) -> AsyncIterator[Backend]:
    """The engine at *url* with whatever schema its database has; raises as ``open_database``."""
    address = urls.parse(url, variable, dialects.SCHEMES)
    backend = await dialects.open_backend(address, variable)
    try:
        yield backend
    finally:
        await backend.engine.dispose()


@contextmanager
def explained(url: str, variable: str, port: int) -> Iterator[None]:
    """A failure to use the database at *url* at all becomes StoreUnavailable with one clear line."""
    try:
        yield
    except Exception as exc:
        if not failures.known(exc):
            raise
        address = urls.parse(url, variable, dialects.SCHEMES)
        raise StoreUnavailable(failures.explain(exc, address, port, variable)) from exc


def _unheard(task: asyncio.Task[Any]) -> None:
    exc = None if task.cancelled() else task.exception()
    if exc is not None:
        _tell_unheard(exc)


def _tell_unheard(exc: BaseException) -> None:
    """A failure that nobody waits for any more is no news, unless it is a defect."""
    if isinstance(exc, (FnError, UnicodeEncodeError, OverflowError)):
        return
    if failures.known(exc):
        log.warning("the database failed: %s", failures.words(exc))
    else:
        log.error("work on the database broke down", exc_info=exc)
