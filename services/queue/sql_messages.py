"""The statements of the SQL queue on its table: plain functions on one connection."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import case, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.rows import AT_ONCE, portions
from services.datastore.tables import messages
from services.queue import sql_passing
from shared_models.call import Call, Lease, LeasedCall, LeaseKey

log = logging.getLogger(__name__)

HARDLY_BEGUN = 0.9
"""Part of its time that a lease still has which need not be renewed."""
_ASIDE = 3600.0
_OF_OTHERS = 32
"""Places that other nodes may be taking, beyond which a reserve that passes over functions does not look."""
_decoder = msgspec.json.Decoder(Call)
_place = messages.c.place
_whole = select(_place, messages.c.attempt, messages.c.pushed, messages.c.call, messages.c.payload)


def holds(key: LeaseKey, row: dict[str, Any] | None) -> bool:
    """Whether *key* has the lease of the message *row*; without a token any lease counts."""
    return row is not None and bool(row["token"]) and key.token in ("", row["token"])


def row_of(call: Call, body: str, now: float) -> dict[str, Any]:
    """What is stored of *call*: *body* is its JSON without the payload."""
    return {
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


async def add(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Whether each of *rows* was new, and is stored now."""
    query = select(messages.c.id).where(messages.c.id.in_([row["id"] for row in rows]))
    known = set(await connection.scalars(query))
    fresh: dict[str, dict[str, Any]] = {}
    added = []
    for row in rows:
        added.append(row["id"] not in known and row["id"] not in fresh)
        if added[-1]:
            fresh[row["id"]] = row
    if fresh:
        await connection.execute(insert(messages), list(fresh.values()))
    return added


async def locked(connection: AsyncConnection, keys: Sequence[LeaseKey]) -> dict[str, dict[str, Any]]:
    """Place, token and time of the messages that *keys* name, locked until the end of the transaction."""
    found: dict[str, dict[str, Any]] = {}
    for ids in portions(sorted({key.id for key in keys})):
        query = select(_place, messages.c.id, messages.c.token, messages.c.free_at)
        query = query.where(messages.c.id.in_(ids)).order_by(messages.c.id)
        for row in (await connection.execute(query.with_for_update())).mappings():
            found[row["id"]] = dict(row)
    return found


async def extend(
    connection: AsyncConnection, batch: Sequence[tuple[Sequence[LeaseKey], float]], now: float
) -> list[list[str]]:
    """Renews leases, each of *batch* for seconds of its own; answers for each the ids that hold nothing."""
    found = await locked(connection, [key for keys, _ in batch for key in keys])
    lost: list[list[str]] = []
    ttls: dict[int, float] = {}
    for keys, ttl in batch:
        for key in keys:
            row = found.get(key.id)
            if row and holds(key, row) and not now + ttl * HARDLY_BEGUN <= row["free_at"] <= now + ttl:
                ttls[row["place"]] = ttl
        lost.append([key.id for key in keys if not holds(key, found.get(key.id))])
    for ttl in set(ttls.values()):
        change = update(messages).values(free_at=now + ttl, ready=0)
        for places in portions(place for place, of_place in ttls.items() if of_place == ttl):
            await connection.execute(change.where(_place.in_(places)))
    return lost


async def give_back(
    connection: AsyncConnection, keys: Sequence[LeaseKey], free_at: float, now: float, *, counted: bool
) -> list[str]:
    """Frees what *keys* hold, from *free_at* on; answers the ids that hold nothing."""
    found = await locked(connection, keys)
    held, lost = [], []
    for key in keys:
        row = found.get(key.id)
        if row is None or not key.token or not holds(key, row):
            lost.append(key.id)
            continue
        held.append(row["place"])
        row["token"] = ""
    change: dict[str, Any] = {"free_at": free_at, "ready": int(free_at <= now), "token": ""}
    if not counted:
        change["attempt"] = messages.c.attempt - 1
    for places in portions(held):
        await connection.execute(update(messages).where(_place.in_(places)).values(change))
    return lost


async def remove(connection: AsyncConnection, keys: Sequence[LeaseKey], now: float) -> None:
    """Removes what *keys* hold, and what nobody holds any more."""
    found = await locked(connection, keys)
    free = []
    for key in keys:
        row = found.get(key.id)
        if row is None:
            continue
        ran_out = bool(row["token"]) and row["free_at"] <= now
        if not key.token or row["token"] == key.token or ran_out:
            free.append(row["place"])
    for places in portions(free):
        await connection.execute(delete(messages).where(_place.in_(places)))


async def promote(connection: AsyncConnection, now: float) -> None:
    """Makes ready what is due."""
    due = select(_place).where(messages.c.ready == 0, messages.c.free_at <= now)
    due = due.order_by(messages.c.free_at).limit(AT_ONCE).with_for_update(skip_locked=True)
    while places := (await connection.scalars(due)).all():
        await connection.execute(update(messages).where(_place.in_(places)).values(ready=1))
        if len(places) < AT_ONCE:
            return


async def lease(
    connection: AsyncConnection, ttls: Sequence[float], now: float, without: Collection[str] = ()
) -> list[LeasedCall]:
    """Leases the first ready ones that nobody else is taking, one for each of *ttls*.

    Those of the functions *without* are passed over.
    """
    rows: list[Any] = []
    first = _whole.order_by(messages.c.rank, _place).with_for_update(skip_locked=True)
    if not without:
        rows += await connection.execute(first.where(messages.c.ready == 1).limit(len(ttls)))
    else:
        fn_ids = await sql_passing.functions(connection, without)
        places = await sql_passing.first_places(connection, fn_ids, len(ttls) + _OF_OTHERS)
        # Not all at once: MariaDB locks all that it looks at.
        for some in (places[: len(ttls)], places[len(ttls) :]):
            if some and len(rows) < len(ttls):
                # The sum keeps a planner from looking for them among all that is ready.
                query = first.where(_place.in_(some), messages.c.ready + 0 == 1)
                rows += await connection.execute(query.limit(len(ttls) - len(rows)))
    return await _lease_rows(connection, rows, ttls, now)


async def lease_named(
    connection: AsyncConnection, ids: Sequence[str], ttl: float, now: float
) -> list[LeasedCall]:
    """Leases those that are due, and that nobody holds or is taking."""
    rows: list[Any] = []
    for some in portions(sorted(ids)):
        # MariaDB locks all that it reads, and would read all of a table that it believes to be small.
        query = _whole.with_hint(messages, "FORCE INDEX (uq_messages_id)", "mysql")
        # The sum keeps a planner from looking for them among all that is due.
        query = query.where(messages.c.id.in_(some), messages.c.free_at + 0 <= now)
        rows += await connection.execute(query.with_for_update(skip_locked=True))
    return await _lease_rows(connection, rows, [ttl] * len(rows), now)


async def _lease_rows(
    connection: AsyncConnection, rows: Sequence[Any], ttls: Sequence[float], now: float
) -> list[LeasedCall]:
    """Leases locked *rows*; what cannot be read is put aside."""
    taken: list[LeasedCall] = []
    tokens: dict[float, dict[int, str]] = {}
    for place, attempt, pushed, body, payload in rows:
        try:
            call = call_of(body, payload, attempt + 1)
        except msgspec.MsgspecError as exc:
            # Kept for whoever looks into it, but out of the way of the others.
            log.error("a queued call cannot be read, and is put aside for an hour: %s", exc)
            aside = update(messages).where(_place == place).values(ready=0, free_at=now + _ASIDE, token="")
            await connection.execute(aside)
            continue
        ttl = ttls[len(taken)]
        token, age = secrets.token_urlsafe(16), max(0.0, now - float(pushed))
        tokens.setdefault(ttl, {})[place] = token
        taken.append(LeasedCall(call=call, lease=Lease(token=token, attempt=attempt + 1, ttl=ttl, age=age)))
    for ttl, held in tokens.items():
        change = {
            "ready": 0,
            "free_at": now + ttl,
            "attempt": messages.c.attempt + 1,
            # One of its own for each: who holds one lease must not know another.
            "token": case(held, value=_place),
        }
        await connection.execute(update(messages).where(_place.in_(held)).values(change))
    return taken


def call_of(body: str, payload: bytes, attempt: int) -> Call:
    """The call in a row; raises MsgspecError for one that cannot be read."""
    return msgspec.structs.replace(_decoder.decode(body), payload=payload, attempt=attempt)
