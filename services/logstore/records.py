"""Records of calls as rows: made from calls, loaded to be changed, written in large statements."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Table, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.rows import portions
from services.datastore.tables import calls
from services.logstore.results import OUTCOME, REASON
from shared_models.call import FINAL, Call, Finished

PIECE = 2**16
"""Bytes of a log in one row, so that reading one streams."""
_INSIDE = ("token", "recorded_at", "path_hash")
RECORD = tuple(column for column in calls.c if column.name not in _INSIDE)
"""The columns that are a call's."""
KNOWN = ("id", "status", "app_id", "fn_id", "error", "completed_at", "attempt", "token")
"""The columns that decisions about a record go by."""
ENDED = ", ".join(f"'{status.value}'" for status in sorted(FINAL))
"""The statuses that do not change any more, as SQL lists them."""
_LOOK = tuple(calls.c[name] for name in KNOWN)
_NAMES = tuple(column.name for column in RECORD)


def path_hash(path: str) -> str:
    """What stands for *path* in an index (16 hex digits); "" for none, as of a call without a route."""
    return hashlib.blake2b(path.encode(), digest_size=8).hexdigest() if path else ""


def call_of(row: Row[Any]) -> Call:
    """The call whose ``RECORD`` is *row*."""
    return Call(**dict(zip(_NAMES, row, strict=True)))


def row_of(call: Call, token: str, now: str) -> dict[str, Any]:
    """The row of a new record."""
    row = {name: _kept(call, name) for name in _NAMES}
    return {**row, "token": token, "recorded_at": now, "path_hash": path_hash(call.path)}


def result_of(one: Finished) -> dict[str, Any]:
    """What the end of a call changes in its record; see ``update_rows``."""
    return {"key": one.call.id, **{name: _kept(one.call, name) for name in OUTCOME}}


def _kept(call: Call, name: str) -> Any:
    return call.reason[:REASON] if name == "reason" else getattr(call, name)


def pieces_of(call_id: str, log: bytes, first: int = 0) -> Iterable[dict[str, Any]]:
    """The rows of a *log*, from number *first* on; none for an empty one."""
    for number, start in enumerate(range(0, len(log), PIECE), first):
        yield {"call_id": call_id, "piece": number, "body": log[start : start + PIECE]}


def in_portions(values: Iterable[str]) -> Iterable[list[str]]:
    """The *values* without repetitions, sorted, as many at a time as one statement may name."""
    return portions(sorted(set(values)))


async def load_rows(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What is known of those of *ids* that have a record, unchanged until this transaction ends."""
    found = {}
    for portion in in_portions(ids):
        # In one order everywhere: two nodes that want the same rows wait, and do not lock each other out.
        query = select(*_LOOK).where(calls.c.id.in_(portion)).order_by(calls.c.id).with_for_update()
        for row in (await connection.execute(query)).mappings():
            found[row["id"]] = dict(row)
    return found


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts *rows* in the order of their keys, as everybody does; one that is taken breaks a constraint."""
    if rows:
        key = [column.name for column in table.primary_key]
        await connection.execute(insert(table), sorted(rows, key=lambda row: [row[name] for name in key]))


async def update_rows(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Sets what each of *rows* (all of one form) has, on the record named by its ``key``."""
    if rows:
        await connection.execute(update(calls).where(calls.c.id == bindparam("key")), rows)
