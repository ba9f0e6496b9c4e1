"""The queue in a PostgreSQL or MySQL database, for an installation of one database and nothing else.

A message is *ready*, or delayed or leased until a time. A reserve first makes ready what is due and then
takes the first ready ones, passing over those that others are taking (``SKIP LOCKED``): it never scans
past what is delayed or leased.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import String, case, cast, delete, func, insert, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.batches import Batches
from services.datastore.database import Database, open_database
from services.datastore.tables import messages
from services.queue.notify import CHANNEL, hearing
from services.queue.server_clock import running_clock
from services.queue.waiting import WaitingQueue
from shared_models import times
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.errors import FnError, Invalid, QueueUnavailable, StoreUnavailable
from shared_models.interfaces import MessageQueue, QueueDepth

log = logging.getLogger(__name__)

VARIABLE = "FN_MQ_URL"
LOOK_EVERY = {"postgres": 5.0, "mysql": 1.0}
"""Seconds after which one waiting reserve of this node looks by itself.

MySQL cannot notify: calls that another node queued are found so. PostgreSQL can; there it is for leases
of other nodes that ran out.
"""
_ASIDE = 3600.0
_PASSED_OVER = 0.05
"""Seconds after which a reserve looks again when all that there is was being taken by other nodes."""
_AT_ONCE = 500
_decoder = msgspec.json.Decoder(Call)
_place = messages.c.place


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
                clock = await stack.enter_async_context(running_clock(partial(_server_time, database)))
        queue = SQLQueue(database, clock)
        stack.push_async_callback(queue.settle)
        if backend.connect:
            await stack.enter_async_context(hearing(backend.connect, queue.ring))
        ticker = asyncio.create_task(_tick(queue.ring, LOOK_EVERY[backend.scheme]), name="queue-tick")
        stack.callback(ticker.cancel)
        yield queue


async def _server_time(database: Database) -> float:
    query = text(database.backend.time)
    return float(await database.read(lambda connection: connection.scalar(query)) or 0)


async def _tick(ring: Callable[[], None], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        ring()


class SQLQueue(WaitingQueue):
    """Pushes, reserves and deletes that arrive while others are under way share the next transaction."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._database = database
        self._notifies = database.backend.connect is not None
        self._next = math.inf
        self._busy = True
        self._takes = Batches(self._take_all)
        self._pushes = Batches(self._push_all)
        self._deletes = Batches(self._delete_all)
        self._returns: set[asyncio.Task[None]] = set()

    def ring(self) -> None:
        """Some call may have become free."""
        self._bell.ring()

    async def settle(self) -> None:
        """Returns when everything asked for so far is done."""
        await self._takes.settle()
        await self._pushes.settle()
        await self._deletes.settle()
        while self._returns:
            await asyncio.wait(self._returns)

    async def push(self, call: Call) -> bool:
        try:
            body = msgspec.json.encode(msgspec.structs.replace(call, payload=b"")).decode()
        except UnicodeEncodeError as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc
        now = self._clock()
        row = {
            "id": call.id,
            "fn_id": call.fn_id,
            "rank": -call.priority,
            "ready": int(call.delay <= 0),
            "pushed": now,
            "free_at": now + max(0, call.delay),
            "attempt": 0,
            "token": "",
            "call": body,
            "payload": call.payload,
        }
        with _unavailable():
            pushed = await self._pushes.ask(row)
        self._bell.ring()
        return pushed

    async def extend(self, keys: Sequence[LeaseKey], ttl: float) -> list[str]:
        free_at = self._clock() + ttl

        async def work(connection: AsyncConnection) -> list[str]:
            found = await _locked(connection, keys)
            held = [key for key in keys if _holds(key, found.get(key.id))]
            if held:
                places = [found[key.id]["place"] for key in held]
                change = update(messages).where(_place.in_(places)).values(free_at=free_at, ready=0)
                await connection.execute(change)
            if held and ttl <= 0:
                await self._announce(connection)
            return [key.id for key in keys if not _holds(key, found.get(key.id))]

        with _unavailable():
            lost = await self._database.transact(work)
        self._next = min(self._next, free_at)
        self._bell.ring()
        return lost

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        now = self._clock()

        async def work(connection: AsyncConnection) -> None:
            found = await _locked(connection, keys)
            held = [key for key in keys if key.token and _holds(key, found.get(key.id))]
            if not held:
                return
            places = [found[key.id]["place"] for key in held]
            change = {"free_at": now, "ready": 1, "token": "", "attempt": messages.c.attempt - 1}
            await connection.execute(update(messages).where(_place.in_(places)).values(change))
            await self._announce(connection)

        with _unavailable():
            await self._database.transact(work)
        self._bell.ring()

    async def delete(self, keys: Sequence[LeaseKey]) -> None:
        if keys:
            with _unavailable():
                await self._deletes.ask(list(keys))

    async def holds(self, call_ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(call_ids), _AT_ONCE):
            query = select(messages.c.id).where(messages.c.id.in_(call_ids[start : start + _AT_ONCE]))
            with _unavailable():
                found.update(await self._database.read(partial(AsyncConnection.scalars, statement=query)))
        return found

    async def depths(self) -> list[QueueDepth]:
        now = self._clock()
        ready = select(messages.c.fn_id, func.count(), func.min(messages.c.pushed))
        ready = ready.where(messages.c.ready == 1).group_by(messages.c.fn_id)
        held = case(((messages.c.token != "") & (messages.c.free_at > now), 1), else_=0)
        waits = case((held == 0, messages.c.pushed))
        others = select(messages.c.fn_id, func.count(), func.min(waits), func.sum(held))
        others = others.where(messages.c.ready == 0).group_by(messages.c.fn_id)

        async def work(connection: AsyncConnection) -> tuple[Sequence[Any], Sequence[Any]]:
            return (await connection.execute(ready)).all(), (await connection.execute(others)).all()

        with _unavailable():
            free, later = await self._database.read(work)
        queued: dict[str, int] = {}
        leased: dict[str, int] = {}
        oldest: dict[str, float] = {}
        for fn_id, count, pushed, *more in [*free, *later]:
            of_those = int(more[0]) if more else 0
            leased[fn_id] = leased.get(fn_id, 0) + of_those
            queued[fn_id] = queued.get(fn_id, 0) + count - of_those
            if pushed is not None:
                oldest[fn_id] = min(pushed, oldest.get(fn_id, math.inf))
        return [
            QueueDepth(
                fn_id=fn_id,
                queued=queued[fn_id],
                leased=leased[fn_id],
                oldest=times.to_text(oldest[fn_id]) if fn_id in oldest else times.NEVER,
            )
            for fn_id in sorted(queued)
        ]

    # -- taking --------------------------------------------------------------------------------

    async def _next_free(self) -> float:
        return self._next

    async def _take(self, limit: int, ttl: float) -> list[LeasedCall]:
        asked = asyncio.create_task(self._lease(limit, ttl), name="queue-take")
        try:
            with _unavailable():
                return await asyncio.shield(asked)
        except asyncio.CancelledError:
            # Nobody will get these leases: they are given back, so that the attempt does not count.
            giving = asyncio.create_task(self._give_back(asked), name="queue-give-back")
            self._returns.add(giving)
            giving.add_done_callback(self._returns.discard)
            raise

    async def _give_back(self, asked: asyncio.Task[list[LeasedCall]]) -> None:
        with suppress(FnError):
            if taken := await asked:
                await self.release([one.key for one in taken])

    async def _lease(self, limit: int, ttl: float) -> list[LeasedCall]:
        # Looks without a transaction first, unless there was something a moment ago.
        if not self._busy and not await self._look():
            return []
        taken = await self._takes.ask((limit, ttl))
        self._busy = bool(taken)
        if not taken and await self._look():
            # Others are taking those; what they leave is seen in a moment.
            self._next = self._clock() + _PASSED_OVER
        return taken

    async def _look(self) -> bool:
        """Whether there may be something to take; learns when the next falls due."""
        query = select(
            select(literal(1)).where(messages.c.ready == 1).limit(1).scalar_subquery(),
            select(func.min(messages.c.free_at)).where(messages.c.ready == 0).scalar_subquery(),
        )
        rows = await self._database.read(lambda connection: connection.execute(query))
        ready, free_at = rows.one()
        self._next = math.inf if free_at is None else float(free_at)
        return ready is not None or self._next <= self._clock()

    # -- transactions --------------------------------------------------------------------------

    async def _announce(self, connection: AsyncConnection) -> None:
        if self._notifies:
            await connection.execute(select(func.pg_notify(CHANNEL, "")))

    async def _take_all(self, asked: Sequence[tuple[int, float]]) -> list[list[LeasedCall]]:
        """What is free, dealt out in the order in which it was asked for: limits, and seconds of leases."""
        now = self._clock()
        ttls = [ttl for limit, ttl in asked for _ in range(limit)][:_AT_ONCE]

        async def work(connection: AsyncConnection) -> list[LeasedCall]:
            await _promote(connection, now)
            return await _lease(connection, ttls, now)

        taken = iter(await self._database.transact(work))
        return [list(islice(taken, limit)) for limit, _ in asked]

    async def _push_all(self, rows: Sequence[dict[str, Any]]) -> list[bool]:
        async def work(connection: AsyncConnection) -> list[bool]:
            query = select(messages.c.id).where(messages.c.id.in_([row["id"] for row in rows]))
            known = set(await connection.scalars(query))
            fresh: dict[str, dict[str, Any]] = {}
            pushed = []
            for row in rows:
                pushed.append(row["id"] not in known and row["id"] not in fresh)
                if pushed[-1]:
                    fresh[row["id"]] = row
            if fresh:
                await connection.execute(insert(messages), list(fresh.values()))
                await self._announce(connection)
            return pushed

        return await self._database.transact(work)

    async def _delete_all(self, batch: Sequence[list[LeaseKey]]) -> list[None]:
        now = self._clock()
        keys = [key for keys in batch for key in keys]

        async def work(connection: AsyncConnection) -> list[None]:
            found = await _locked(connection, keys)
            places = []
            for key in keys:
                row = found.get(key.id)
                if row is None:
                    continue
                ran_out = bool(row["token"]) and row["free_at"] <= now
                if not key.token or row["token"] == key.token or ran_out:
                    places.append(row["place"])
            if places:
                await connection.execute(delete(messages).where(_place.in_(places)))
            return [None] * len(batch)

        return await self._database.transact(work)


def _holds(key: LeaseKey, row: dict[str, Any] | None) -> bool:
    return row is not None and bool(row["token"]) and key.token in ("", row["token"])


async def _locked(connection: AsyncConnection, keys: Sequence[LeaseKey]) -> dict[str, dict[str, Any]]:
    """Place, token and time of the messages that *keys* name, locked until the end of the transaction."""
    found: dict[str, dict[str, Any]] = {}
    ids = sorted({key.id for key in keys})
    for start in range(0, len(ids), _AT_ONCE):
        query = select(_place, messages.c.id, messages.c.token, messages.c.free_at)
        query = query.where(messages.c.id.in_(ids[start : start + _AT_ONCE])).order_by(messages.c.id)
        for row in (await connection.execute(query.with_for_update())).mappings():
            found[row["id"]] = dict(row)
    return found


async def _promote(connection: AsyncConnection, now: float) -> None:
    """Makes ready what is due."""
    due = select(_place).where(messages.c.ready == 0, messages.c.free_at <= now)
    due = due.order_by(messages.c.free_at).limit(_AT_ONCE).with_for_update(skip_locked=True)
    while places := (await connection.scalars(due)).all():
        await connection.execute(update(messages).where(_place.in_(places)).values(ready=1))
        if len(places) < _AT_ONCE:
            return


async def _lease(connection: AsyncConnection, ttls: Sequence[float], now: float) -> list[LeasedCall]:
    """Leases the first ready ones that nobody else is taking, one for each of *ttls*."""
    first = select(_place, messages.c.attempt, messages.c.pushed, messages.c.call, messages.c.payload)
    first = first.where(messages.c.ready == 1).order_by(messages.c.rank, _place)
    rows = (await connection.execute(first.limit(len(ttls)).with_for_update(skip_locked=True))).all()
    secret = secrets.token_urlsafe(16)
    taken: list[LeasedCall] = []
    places: dict[float, list[int]] = {}
    for place, attempt, pushed, body, payload in rows:
        try:
            call = msgspec.structs.replace(_decoder.decode(body), payload=payload, attempt=attempt + 1)
        except msgspec.MsgspecError as exc:
            # Kept for whoever looks into it, but out of the way of the others.
            log.error("a queued call cannot be read, and is put aside for an hour: %s", exc)
            aside = update(messages).where(_place == place).values(ready=0, free_at=now + _ASIDE, token="")
            await connection.execute(aside)
            continue
        ttl = ttls[len(taken)]
        places.setdefault(ttl, []).append(place)
        token, age = f"{secret}.{place}", max(0.0, now - float(pushed))
        taken.append(LeasedCall(call=call, lease=Lease(token=token, attempt=attempt + 1, ttl=ttl, age=age)))
    for ttl, held in places.items():
        change = {
            "ready": 0,
            "free_at": now + ttl,
            "attempt": messages.c.attempt + 1,
            "token": literal(f"{secret}.") + cast(_place, String(32)),
        }
        await connection.execute(update(messages).where(_place.in_(held)).values(change))
    return taken


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as exc:
        raise QueueUnavailable(detail=exc.detail or exc.message) from exc
