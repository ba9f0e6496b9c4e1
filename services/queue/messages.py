"""The statements on the queue's table (``sqlite_schema``): plain functions on one SQLite connection.

``free_at`` is when a message may be handed out: when it is due, or when its lease runs out.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import sqlite3
from collections.abc import Collection, Sequence
from functools import cache

import msgspec

from services import sqlite_rows
from shared_models import times
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.interfaces import QueueDepth, WaitingCall

log = logging.getLogger(__name__)

_ASIDE = 3600.0
HARDLY_BEGUN = 0.9
"""Part of its time that a lease still has which need not be renewed."""
_IS_HELD = "token != '' AND held.column2 IN (token, '')"
_HELD = "token != '' AND free_at > :now"
_COUNTS = f"count(*), count(CASE WHEN {_HELD} THEN 1 END), min(CASE WHEN {_HELD} THEN NULL ELSE pushed END)"
_COLUMNS = "id", "fn_id", "priority", "pushed", "free_at", "attempt", "token", "call", "payload"
_decoder = msgspec.json.Decoder(Call)
Row = tuple[object, ...]


def row(call: Call, now: float) -> Row:
    """What is stored of *call*: JSON (annotations are JSON text), with the payload beside it as it is."""
    text = msgspec.json.encode(msgspec.structs.replace(call, payload=b""))
    return call.id, call.fn_id, call.priority, now, now + max(0, call.delay), 0, "", text, call.payload


def push(db: sqlite3.Connection, new: Row) -> bool:
    """False when the id is there already."""
    return push_all(db, [new])[0]


def push_all(db: sqlite3.Connection, rows: Sequence[Row]) -> list[bool]:
    """Of each of *rows*, in their order, whether it is new; False when its id is there already."""
    pushed: list[bool] = []
    known = holds(db, [str(new[0]) for new in rows])
    fresh: dict[object, Row] = {}
    for new in rows:
        pushed.append(new[0] not in known and new[0] not in fresh)
        if pushed[-1]:
            fresh[new[0]] = new
    for some, size in sqlite_rows.portions([*fresh.values()]):
        db.execute(_insertion(size), sqlite_rows.flat(some, size))
    return pushed


@cache
def _insertion(size: int) -> str:
    return sqlite_rows.insertion("messages", _COLUMNS, size)


def look(db: sqlite3.Connection, now: float, without: Collection[str]) -> tuple[bool, float]:
    """Whether there is a free message of other functions than *without*; when the next falls due.

    In unix seconds, infinite when there is none.
    """
    free = db.execute(
        "SELECT 1 FROM messages INDEXED BY messages_in_time "
        f"WHERE free_at <= ? AND {_not_of(without)} LIMIT 1",
        (now, *without),
    ).fetchone()
    due = db.execute("SELECT min(free_at) FROM messages WHERE free_at > ?", (now,)).fetchone()[0]
    return free is not None, math.inf if due is None else due


def take(
    db: sqlite3.Connection, limit: int, now: float, ttl: float, without: Collection[str]
) -> list[LeasedCall]:
    """Leases the first free ones of other functions than *without*."""
    taken: list[LeasedCall] = []
    # Those that cannot be read are put aside, and must not hide the ones behind them.
    while not taken and (first := first_free(db, limit, now, without)):
        taken = _leased(db, first, now, ttl)
    return taken


def take_named(db: sqlite3.Connection, call_ids: Sequence[str], now: float, ttl: float) -> list[LeasedCall]:
    """Leases those of the calls that are free."""
    free: list[int] = []
    for some, size in sqlite_rows.portions([*dict.fromkeys(call_ids)]):
        query = f"SELECT place FROM messages WHERE id IN ({sqlite_rows.places('?', size)}) AND free_at <= ?"
        free += [place for (place,) in db.execute(query, [*sqlite_rows.filled(some, size), now])]
    return _leased(db, free, now, ttl)


def _leased(db: sqlite3.Connection, free: Sequence[int], now: float, ttl: float) -> list[LeasedCall]:
    """Leases what is at the places *free*; what cannot be read is put aside."""
    taken: list[LeasedCall] = []
    for some, size in sqlite_rows.portions(free):
        changes: list[Row] = []
        rows = db.execute(_whole(size), sqlite_rows.filled(some, size))
        found = {place: values for place, *values in rows}
        for place in some:
            attempt, pushed, text, payload = found[place]
            if (call := _read(text, payload, attempt)) is None:
                changes.append((place, "", attempt - 1, now + _ASIDE))
                continue
            token = secrets.token_urlsafe(16)
            changes.append((place, token, attempt, now + ttl))
            lease = Lease(token=token, attempt=attempt, ttl=ttl, age=max(0.0, now - pushed))
            taken.append(LeasedCall(call=call, lease=lease))
        db.execute(_leasing(size), sqlite_rows.flat(changes, size))
    return taken


@cache
def _whole(size: int) -> str:
    return (
        "SELECT place, attempt + 1, pushed, call, payload FROM messages "
        f"WHERE place IN ({sqlite_rows.places('?', size)})"
    )


@cache
def _leasing(size: int) -> str:
    return (
        "UPDATE messages SET token = new.column2, attempt = new.column3, free_at = new.column4 "
        f"FROM (VALUES {sqlite_rows.places('(?, ?, ?, ?)', size)}) AS new WHERE place = new.column1"
    )


def first_free(db: sqlite3.Connection, limit: int, now: float, without: Collection[str]) -> list[int]:
    """The places of the first free ones, in order, from an index alone: calls passed over are not read."""
    rows = db.execute(
        "SELECT place FROM messages INDEXED BY messages_in_order "
        f"WHERE free_at <= ? AND {_not_of(without)} ORDER BY priority DESC, place LIMIT ?",
        (now, *without, limit),
    )
    return [place for (place,) in rows]


def _not_of(without: Collection[str]) -> str:
    return f"fn_id NOT IN ({', '.join('?' * len(without))})"


def _read(text: bytes, payload: bytes, attempt: int) -> Call | None:
    try:
        return msgspec.structs.replace(_decoder.decode(text), payload=payload, attempt=attempt)
    except msgspec.MsgspecError as exc:
        # Kept for whoever looks into it, but out of the way of the others.
        log.error("a queued call cannot be read, and is put aside for an hour: %s", exc)
        return None


def extend(db: sqlite3.Connection, keys: Sequence[LeaseKey], now: float, ttl: float) -> list[str]:
    """The ids of *keys* that hold nothing. Leases that have hardly begun stay as they are."""
    lost: list[str] = []
    for some, size in sqlite_rows.portions(keys):
        values = sqlite_rows.flat([(key.id, key.token) for key in some], size)
        # A call is mostly started right after it was leased: then this look is all, and nothing is synced.
        old, found = db.execute(_held_look(size), (now + ttl * HARDLY_BEGUN, now + ttl, *values)).fetchone()
        if old:
            db.execute(_extension(size), (now + ttl, *values))
        if found != len(some):
            statement = "SELECT 1 FROM messages WHERE id = ? AND token != '' AND ? IN (token, '')"
            lost += [key.id for key in some if not db.execute(statement, (key.id, key.token)).fetchone()]
    return lost


@cache
def _held_look(size: int) -> str:
    return (
        f"SELECT count(CASE WHEN free_at NOT BETWEEN ? AND ? THEN 1 END), count(*) FROM {_keys(size)} "
        f"CROSS JOIN messages ON id = held.column1 WHERE {_IS_HELD}"
    )


@cache
def _extension(size: int) -> str:
    return f"UPDATE messages SET free_at = ? FROM {_keys(size)} WHERE id = held.column1 AND {_IS_HELD}"


def _keys(size: int) -> str:
    return f"(VALUES {sqlite_rows.places('(?, ?)', size)}) AS held"


def release(db: sqlite3.Connection, keys: Sequence[LeaseKey], now: float) -> None:
    """Frees what *keys* hold, uncounted."""
    db.executemany(
        "UPDATE messages SET free_at = ?, attempt = attempt - 1, token = '' "
        "WHERE id = ? AND token = ? AND token != ''",
        [(now, key.id, key.token) for key in keys],
    )


def requeue(db: sqlite3.Connection, keys: Sequence[LeaseKey], now: float, delay: float) -> list[str]:
    """Frees what *keys* hold after *delay* seconds, counted; the ids of *keys* that hold nothing."""
    statement = "UPDATE messages SET free_at = ?, token = '' WHERE id = ? AND token = ? AND token != ''"
    due = now + max(0, delay)
    return [key.id for key in keys if not db.execute(statement, (due, key.id, key.token)).rowcount]


def delete(db: sqlite3.Connection, keys: Sequence[LeaseKey], now: float) -> None:
    """Removes what *keys* hold, and what nobody holds any more."""
    for some, size in sqlite_rows.portions(keys):
        values = sqlite_rows.flat([(key.id, key.token) for key in some], size)
        db.execute(_deletion(size), (*values, now))


@cache
def _deletion(size: int) -> str:
    return (
        f"DELETE FROM messages WHERE place IN (SELECT place FROM {_keys(size)} "
        "CROSS JOIN messages ON id = held.column1 "
        "WHERE held.column2 IN (token, '') OR (token != '' AND free_at <= ?))"
    )


def holds(db: sqlite3.Connection, call_ids: Sequence[str]) -> set[str]:
    """Those of the ids that are there."""
    found: set[str] = set()
    for some, size in sqlite_rows.portions(call_ids):
        query = f"SELECT id FROM messages WHERE id IN ({sqlite_rows.places('?', size)})"
        found.update(call_id for (call_id,) in db.execute(query, sqlite_rows.filled(some, size)))
    return found


def find(db: sqlite3.Connection, call_ids: Sequence[str]) -> dict[str, Call]:
    """Those of the calls that are there and can be read, whole."""
    statement = "SELECT call, payload, attempt FROM messages WHERE id = ?"
    rows = {call_id: db.execute(statement, (call_id,)).fetchone() for call_id in call_ids}
    read = {call_id: _read(*row) for call_id, row in rows.items() if row}
    return {call_id: call for call_id, call in read.items() if call is not None}


def waiting(db: sqlite3.Connection, fn_id: str, after: str, limit: int, now: float) -> list[WaitingCall]:
    """Those of a function that nobody holds, in the order of its index, behind *after*."""
    # Of the index: free_at, token, pushed; and place, which every index ends with.
    seen = msgspec.json.decode(after) if after else (0.0, "", 0.0, 0)
    rows = db.execute(
        "SELECT free_at, token, pushed, place, attempt, call FROM messages INDEXED BY messages_by_fn "
        "WHERE fn_id = ? AND (free_at, token, pushed, place) > (?, ?, ?, ?) AND (token = '' OR free_at <= ?) "
        "ORDER BY free_at, token, pushed, place LIMIT ?",
        (fn_id, *seen, now, limit),
    )
    found: list[WaitingCall] = []
    for free_at, token, pushed, place, attempt, text in rows:
        # One that cannot be read is told of when it is handed out.
        with contextlib.suppress(msgspec.MsgspecError):
            call = msgspec.structs.replace(_decoder.decode(text), attempt=attempt)
            at = msgspec.json.encode((free_at, token, pushed, place)).decode()
            found.append(WaitingCall(call=call, age=now - pushed, place=at))
    return found


def depth(db: sqlite3.Connection, fn_id: str, now: float) -> QueueDepth:
    """Of one function."""
    query = f"SELECT {_COUNTS} FROM messages WHERE fn_id = :fn_id"
    return _depth(fn_id, *db.execute(query, {"now": now, "fn_id": fn_id}).fetchone())


def depths(db: sqlite3.Connection, now: float) -> list[QueueDepth]:
    """Per function."""
    query = f"SELECT fn_id, {_COUNTS} FROM messages GROUP BY fn_id ORDER BY fn_id"
    return [_depth(*row) for row in db.execute(query, {"now": now})]


def _depth(fn_id: str, messages: int, leased: int, oldest: float | None) -> QueueDepth:
    return QueueDepth(
        fn_id=fn_id,
        queued=messages - leased,
        leased=leased,
        oldest=times.NEVER if oldest is None else times.to_text(oldest),
    )
