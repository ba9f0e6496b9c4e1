"""The queue in a PostgreSQL or MySQL database, for an installation of one database and nothing else.

A message is *ready*, or delayed or leased until a time. A reserve first makes ready what is due and then
takes the first ready ones, passing over those that others are taking (``SKIP LOCKED``): it never scans
past what is delayed or leased.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database, open_database
from services.datastore.rows import AT_ONCE, largest_statement, written
from services.queue import sql_looks, sql_messages, sql_waiting
from services.queue.notify import CHANNEL, hearing
from services.queue.server_clock import running_clock
from services.queue.waiting import WaitingQueue
from shared_models import times
from shared_models.batches import Batches
from shared_models.call import Call, LeasedCall, LeaseKey
from shared_models.errors import Invalid, QueueUnavailable, StoreUnavailable, TooLarge
from shared_models.interfaces import MessageQueue, QueueDepth, WaitingCall

VARIABLE = "FN_MQ_URL"
LOOK_EVERY = {"postgres": 5.0, "mysql": 1.0}
"""Seconds after which one waiting reserve of this node looks by itself.

MySQL cannot notify: calls that another node queued are found so. PostgreSQL can; there it is for leases
of other nodes that ran out.
"""
_PASSED_OVER = 0.05
"""Seconds after which a reserve looks again when all that there is was being taken by other nodes."""
_Asked = tuple[int, float, frozenset[str]]
"""How many calls, for how many seconds, and the functions that are passed over."""


@asynccontextmanager
async def open_sql_queue(url: str, clock: Callable[[], float] | None = None) -> AsyncIterator[MessageQueue]:
    """The queue in the database at *url*, with a pool of its own; see ``open_database`` for URLs.

    Raises ValueError for bad parameters, QueueUnavailable with one clear line when it cannot be used.
    """
    async with AsyncExitStack() as stack:
        try:
            database = await stack.enter_async_context(open_database(url, VARIABLE))
        except StoreUnavailable as exc:
            raise QueueUnavailable(exc.message, detail=exc.detail) from exc
        yield await stack.enter_async_context(open_queue_on(database, clock))


@asynccontextmanager
async def open_queue_on(
    database: Database, clock: Callable[[], float] | None = None
) -> AsyncIterator[MessageQueue]:
    """The queue in *database*, which others may use too. Without *clock* it goes by the server's time."""
    backend = database.backend
    async with AsyncExitStack() as stack:
        if clock is None:
            with _unavailable():
                ask = partial(_ask_number, database, backend.time)
                clock = await stack.enter_async_context(running_clock(ask))
        with _unavailable():
            most = await largest_statement(database)
        queue = SQLQueue(database, clock, most)
        stack.push_async_callback(queue.settle)
        if backend.connect:
            await stack.enter_async_context(hearing(backend.connect, queue.ring))
        ticker = asyncio.create_task(_tick(queue.ring, LOOK_EVERY[backend.scheme]), name="queue-tick")
        stack.callback(ticker.cancel)
        yield queue


async def _ask_number(database: Database, question: str) -> float:
    query = text(question)
    return float(await database.read(lambda connection: connection.scalar(query)) or 0)


async def _tick(ring: Callable[[], None], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        ring()


class SQLQueue(WaitingQueue):
    """Pushes, reserves, extensions and deletes that come while others are under way share a transaction.

    *most*: bytes of a statement that the server takes: it hangs up on a larger one, and on all who share it.
    """

    def __init__(self, database: Database, clock: Callable[[], float], most: float = math.inf) -> None:
        super().__init__(clock)
        self._most = most
        self._database = database
        self._notifies = database.backend.connect is not None
        self._next = math.inf
        self._again = -math.inf
        self._busy = True
        self._takes = Batches(self._take_all)
        self._pushes = Batches(self._push_all)
        self._extends = Batches(self._extend_all)
        self._deletes = Batches(self._delete_all)

    async def settle(self) -> None:
        """Returns when everything asked for so far is done."""
        await self._takes.settle()
        await self._pushes.settle()
        await self._extends.settle()
        await self._deletes.settle()
        await self._unclaimed.settle()

    async def push(self, call: Call) -> bool:
        try:
            body = msgspec.json.encode(msgspec.structs.replace(call, payload=b""))
        except UnicodeEncodeError as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc
        if self._most < math.inf and written(body, call.payload) > self._most:
            raise TooLarge(detail="a call is larger than the database takes (max_allowed_packet)")
        row = sql_messages.row_of(call, body.decode(), self._clock())
        with _unavailable():
            pushed = await self._pushes.ask(row)
        self._bell.ring(call.fn_id)
        return pushed

    async def reserve_named(self, call_ids: Sequence[str], ttl: float) -> list[LeasedCall]:
        now, named = self._clock(), list(dict.fromkeys(call_ids))

        async def work(connection: AsyncConnection) -> list[LeasedCall]:
            return await sql_messages.lease_named(connection, named, ttl, now)

        with _unavailable():
            return await self._unclaimed.leased(self._database.transact(work)) if named else []

    async def waiting(self, fn_id: str, after: str, limit: int) -> list[WaitingCall]:
        look = partial(sql_waiting.waiting, fn_id=fn_id, after=after, limit=limit, now=self._clock())
        with _unavailable():
            return await self._database.read(look)

    async def extend(self, keys: Sequence[LeaseKey], ttl: float) -> list[str]:
        if not keys:
            return []
        with _unavailable():
            lost = await self._extends.ask((list(keys), ttl))
        self._bell.ring()
        return lost

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        await self._give_back_keys(keys, 0.0, counted=False)

    async def requeue(self, keys: Sequence[LeaseKey], delay: float) -> list[str]:
        return await self._give_back_keys(keys, max(0.0, delay), counted=True)

    async def _give_back_keys(self, keys: Sequence[LeaseKey], delay: float, *, counted: bool) -> list[str]:
        now = self._clock()

        async def work(connection: AsyncConnection) -> list[str]:
            lost = await sql_messages.give_back(connection, keys, now + delay, now, counted=counted)
            if len(lost) < len(keys):
                await self._announce(connection)
            return lost

        if not keys:
            return []
        with _unavailable():
            lost = await self._database.transact(work)
        self._next = min(self._next, now + delay)
        self._bell.ring()
        return lost

    async def delete(self, keys: Sequence[LeaseKey]) -> None:
        if keys:
            with _unavailable():
                await self._deletes.ask(list(keys))

    async def holds(self, call_ids: Sequence[str]) -> set[str]:
        with _unavailable():
            return await self._database.read(partial(sql_looks.held, ids=call_ids))

    async def find(self, call_ids: Sequence[str]) -> dict[str, Call]:
        with _unavailable():
            return await self._database.read(partial(sql_looks.find, ids=call_ids))

    async def depth(self, fn_id: str) -> QueueDepth:
        with _unavailable():
            found = await self._database.read(partial(sql_looks.depths, now=self._clock(), fn_id=fn_id))
        return found[0] if found else QueueDepth(fn_id=fn_id, queued=0, leased=0, oldest=times.NEVER)

    async def depths(self) -> list[QueueDepth]:
        with _unavailable():
            return await self._database.read(partial(sql_looks.depths, now=self._clock()))

    # -- taking --------------------------------------------------------------------------------

    async def _next_free(self) -> float:
        now = self._clock()
        if self._again <= now:
            return self._next
        # What is due, and was being taken by others a moment ago, is not looked at all the time.
        return min(self._next, self._again) if self._next > now else self._again

    async def _take(self, limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
        with _unavailable():
            return await self._unclaimed.leased(self._lease(limit, ttl, frozenset(without)))

    async def _lease(self, limit: int, ttl: float, without: frozenset[str]) -> list[LeasedCall]:
        # Looks without a transaction first, unless there was something a moment ago.
        if (without or not self._busy) and not await self._look(without):
            return []
        taken = await self._takes.ask((limit, ttl, without))
        if not without:
            self._busy = bool(taken)
        if not taken and await self._look(without):
            # Others are taking those; what they leave is seen in a moment.
            self._again = self._clock() + _PASSED_OVER
        return taken

    async def _look(self, without: frozenset[str]) -> bool:
        """Whether there may be something to take; learns when the next falls due."""
        found, free_at = await self._database.read(partial(sql_looks.look, without=without))
        self._next = free_at
        return found or self._next <= self._clock()

    # -- transactions --------------------------------------------------------------------------

    async def _announce(self, connection: AsyncConnection, fn_id: str = "") -> None:
        """Tells other nodes that a call, of the one function if given, may have become free."""
        if self._notifies:
            await connection.execute(select(func.pg_notify(CHANNEL, fn_id)))

    async def _take_all(self, asked: Sequence[_Asked]) -> list[list[LeasedCall]]:
        """What is free, dealt out in the order in which it was asked for by those who pass over the same."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> dict[frozenset[str], list[LeasedCall]]:
            await sql_messages.promote(connection, now)
            return {
                without: await sql_messages.lease(connection, some[:AT_ONCE], now, without)
                for without, some in ttls.items()
            }

        ttls: dict[frozenset[str], list[float]] = {}
        for limit, ttl, without in asked:
            ttls.setdefault(without, []).extend([ttl] * limit)
        taken = {without: iter(some) for without, some in (await self._database.transact(work)).items()}
        return [list(islice(taken[without], limit)) for limit, _, without in asked]

    async def _push_all(self, rows: Sequence[dict[str, Any]]) -> list[bool]:
        async def work(connection: AsyncConnection) -> list[bool]:
            pushed = await sql_messages.add(connection, rows)
            functions = {row["fn_id"] for row, new in zip(rows, pushed, strict=True) if new}
            if functions:
                await self._announce(connection, functions.pop() if len(functions) == 1 else "")
            return pushed

        return await self._database.transact(work)

    async def _extend_all(self, batch: Sequence[tuple[list[LeaseKey], float]]) -> list[list[str]]:
        now = self._clock()

        async def work(connection: AsyncConnection) -> list[list[str]]:
            lost = await sql_messages.extend(connection, batch, now)
            if any(ttl <= 0 for _, ttl in batch):
                await self._announce(connection)
            return lost

        lost = await self._database.transact(work)
        self._next = min([self._next, *(now + ttl for _, ttl in batch)])
        return lost

    async def _delete_all(self, batch: Sequence[list[LeaseKey]]) -> list[None]:
        now = self._clock()
        keys = [key for keys in batch for key in keys]

        async def work(connection: AsyncConnection) -> list[None]:
            await sql_messages.remove(connection, keys, now)
            return [None] * len(batch)

        return await self._database.transact(work)


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as exc:
        raise QueueUnavailable(detail=exc.detail or exc.message) from exc
