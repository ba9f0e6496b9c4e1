"""A SQL database with its schema in place: reads, transactions, and no driver's exception leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import exc as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from services import urls
from services.datastore import dialects, migrate
from services.datastore.dialects import Backend
from shared_models.errors import Invalid, StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

_TRIES = 5


class Database:
    """What the SQL stores stand on. Safe concurrently."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine = backend.engine
        # In one process writers take turns here, which is fair; SQLite's own lock is polled.
        self._writing = asyncio.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def backend(self) -> Backend:
        """The engine below, and how one works with it."""
        return self._backend

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs *work*, whose statements only read, each of them a transaction of its own."""

        async def reading() -> T:
            async with self._engine.connect() as raw:
                connection = await raw.execution_options(**self._backend.reading)
                return await work(connection)

        return await self._to_the_end(reading())

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs *work* in one transaction and commits; its exceptions roll back and pass.

        A broken constraint means that somebody was faster: *work* runs again, and its own checks,
        which see the winner now, name what is taken.
        """

        async def writing() -> T:
            for left in reversed(range(_TRIES)):
                try:
                    async with self._turn(), self._engine.connect() as raw:
                        connection = await raw.execution_options(**self._backend.writing)
                        async with connection.begin():
                            return await work(connection)
                except sql.IntegrityError:
                    if not left:
                        raise
            raise AssertionError("unreachable")

        return await self._to_the_end(writing())

    async def close(self) -> None:
        """Takes nothing new, and returns when nothing is under way any more."""
        self._closed = True
        while self._under_way:
            await asyncio.wait(self._under_way)
        await self._engine.dispose()

    def _turn(self) -> AbstractAsyncContextManager[Any]:
        return self._writing if self._backend.turns else nullcontext()

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits *work*, which goes on when the caller is cancelled.

        A connection that is left in the middle of a statement can only be thrown away, and with it
        a database in memory.
        """
        if self._closed:
            work.close()
            raise StoreUnavailable("The database is closed: the node is stopping")
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        with _mapped():
            return await asyncio.shield(task)


@asynccontextmanager
async def open_database(url: str, variable: str = "FN_DB_URL") -> AsyncIterator[Database]:
    """The database at *url* (``sqlite:///path``, ``sqlite://`` in memory), brought to our schema.

    Raises ValueError for a URL that is none of ours (it names *variable*), StoreUnavailable with one
    clear line when the database cannot be used or has a newer schema than this version knows.
    """
    address = urls.parse(url, variable, dialects.SCHEMES)
    database = Database(await dialects.open_backend(address, variable))
    try:
        await database.transact(lambda connection: connection.run_sync(migrate.upgrade))
        yield database
    finally:
        await database.close()


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (sql.DBAPIError, sql.TimeoutError) as exc:
        log.error("the database failed: %s", getattr(exc, "orig", None) or exc)
        raise StoreUnavailable(detail=type(exc).__name__) from exc
    except (UnicodeEncodeError, OverflowError) as exc:
        raise Invalid(f"A value cannot be stored: {exc}") from exc
