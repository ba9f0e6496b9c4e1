"""The queue's table, and the statements on it: plain functions on one SQLite connection.

``free_at`` is when a message may be handed out: when it is due, or when its lease runs out.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Sequence

import msgspec

from shared_models import times
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.interfaces import QueueDepth

log = logging.getLogger(__name__)

VERSION = 1
_SCHEMA = """
    CREATE TABLE messages (
        place    INTEGER PRIMARY KEY AUTOINCREMENT,
        id       TEXT NOT NULL UNIQUE,
        fn_id    TEXT NOT NULL,
        priority INTEGER NOT NULL,
        pushed   REAL NOT NULL,
        free_at  REAL NOT NULL,
        attempt  INTEGER NOT NULL,
        token    TEXT NOT NULL,
        call     BLOB NOT NULL,
        payload  BLOB NOT NULL
    );
    CREATE INDEX messages_in_order ON messages (priority DESC, place, free_at);
    CREATE INDEX messages_in_time ON messages (free_at);
    CREATE INDEX messages_by_fn ON messages (fn_id, free_at);
"""
_ASIDE = 3600.0
_decoder = msgspec.json.Decoder(Call)
Row = tuple[object, ...]


def make_table(db: sqlite3.Connection) -> None:
    """Makes the table in a new file; raises ValueError when a newer version of ours made it."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise ValueError(
            f"it has queue schema {version}, and this version knows {VERSION}: it was written by a newer "
            "version of fn-hybrid; upgrade this node"
        )
    if version < VERSION:
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={VERSION}")


def row(call: Call, now: float) -> Row:
    """What is stored of *call*: JSON (annotations are JSON text), with the payload beside it as it is."""
    text = msgspec.json.encode(msgspec.structs.replace(call, payload=b""))
    return call.id, call.fn_id, call.priority, now, now + max(0, call.delay), text, call.payload


def push(db: sqlite3.Connection, new: Row) -> bool:
    """False when the id is there already."""
    statement = (
        "INSERT INTO messages (id, fn_id, priority, pushed, free_at, attempt, token, call, payload) "
        "VALUES (?, ?, ?, ?, ?, 0, '', ?, ?) ON CONFLICT (id) DO NOTHING"
    )
    return db.execute(statement, new).rowcount == 1


def is_free(db: sqlite3.Connection, now: float) -> bool:
    """Whether there is a message that may be handed out."""
    return db.execute("SELECT 1 FROM messages WHERE free_at <= ? LIMIT 1", (now,)).fetchone() is not None


def take(db: sqlite3.Connection, limit: int, now: float, ttl: float) -> list[LeasedCall]:
    """Leases the first free ones."""
    found = db.execute(
        "SELECT place, attempt + 1, pushed, call, payload FROM messages INDEXED BY messages_in_order "
        "WHERE free_at <= ? ORDER BY priority DESC, place LIMIT ?",
        (now, limit),
    ).fetchall()
    taken, changes = [], []
    for place, attempt, pushed, text, payload in found:
        try:
            call = msgspec.structs.replace(_decoder.decode(text), payload=payload, attempt=attempt)
        except msgspec.MsgspecError as exc:
            # Kept for whoever looks into it, but out of the way of the others.
            log.error("a queued call cannot be read, and is put aside for an hour: %s", exc)
            changes.append(("", attempt - 1, now + _ASIDE, place))
            continue
        token = secrets.token_urlsafe(16)
        changes.append((token, attempt, now + ttl, place))
        lease = Lease(token=token, attempt=attempt, ttl=ttl, age=max(0.0, now - pushed))
        taken.append(LeasedCall(call=call, lease=lease))
    db.executemany("UPDATE messages SET token = ?, attempt = ?, free_at = ? WHERE place = ?", changes)
    return taken


def next_free(db: sqlite3.Connection) -> float | None:
    """When the next message may be handed out; None when there is none."""
    found: float | None = db.execute("SELECT min(free_at) FROM messages").fetchone()[0]
    return found


def extend(db: sqlite3.Connection, keys: Sequence[LeaseKey], now: float, ttl: float) -> list[str]:
    """The ids of *keys* that hold nothing."""
    statement = "UPDATE messages SET free_at = ? WHERE id = ? AND token != '' AND ? IN (token, '')"
    return [key.id for key in keys if not db.execute(statement, (now + ttl, key.id, key.token)).rowcount]


def release(db: sqlite3.Connection, keys: Sequence[LeaseKey], now: float) -> None:
    """Frees what *keys* hold, uncounted."""
    db.executemany(
        "UPDATE messages SET free_at = ?, attempt = attempt - 1, token = '' "
        "WHERE id = ? AND token = ? AND token != ''",
        [(now, key.id, key.token) for key in keys],
    )


def delete(db: sqlite3.Connection, keys: Sequence[LeaseKey], now: float) -> None:
    """Removes what *keys* hold, and what nobody holds any more."""
    db.executemany(
        "DELETE FROM messages WHERE id = ? AND (? IN (token, '') OR (token != '' AND free_at <= ?))",
        [(key.id, key.token, now) for key in keys],
    )


def holds(db: sqlite3.Connection, call_ids: Sequence[str]) -> set[str]:
    """Those of the ids that are there."""
    statement = "SELECT 1 FROM messages WHERE id = ?"
    return {call_id for call_id in call_ids if db.execute(statement, (call_id,)).fetchone()}


def depths(db: sqlite3.Connection, now: float) -> list[QueueDepth]:
    """Per function."""
    rows = db.execute(
        "SELECT fn_id, sum(NOT held), sum(held), min(CASE WHEN NOT held THEN pushed END) FROM "
        "(SELECT fn_id, pushed, token != '' AND free_at > ? AS held FROM messages) "
        "GROUP BY fn_id ORDER BY fn_id",
        (now,),
    )
    return [
        QueueDepth(
            fn_id=fn_id,
            queued=queued,
            leased=leased,
            oldest=times.NEVER if oldest is None else times.to_text(oldest),
        )
        for fn_id, queued, leased, oldest in rows
    ]
