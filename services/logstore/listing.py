"""Which records a page has, as queries that are a short range of an index however many calls there are.

A record is found by the time in its id (``shared_models.ids``), which every index of calls ends with, and
then held against its ``created_at``. Both are written by whoever took the call, at nearly the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, TextClause, select

from services.datastore.seeking import seek
from services.datastore.tables import NOT_ENDED, WITH_A_PATH, calls
from services.logstore.records import RECORD, path_hash
from shared_models import ids, times
from shared_models.call import FINAL, Status
from shared_models.interfaces import CallFilter

SLACK = 60.0
"""Seconds by which the time in an id and ``created_at`` may differ."""
_RECORDS = select(*RECORD)
# What indexes of calls have before the id, and the rows that they are of; the best one first.
_INDEXED: tuple[tuple[tuple[Column[Any], ...], TextClause | None], ...] = (
    ((calls.c.fn_id, calls.c.status), None),
    ((calls.c.app_id, calls.c.path_hash), WITH_A_PATH),
    ((calls.c.fn_id,), None),
    ((calls.c.app_id,), None),
    ((calls.c.status,), NOT_ENDED),
    ((), None),
)


def page_of(page: CallFilter, dialect: str) -> Select[Any]:
    """The records of *page*, newest first; *dialect* is SQLAlchemy's name of it."""
    found = records(
        dialect,
        fn_id=page.fn_id,
        app_id=page.app_id,
        path=page.path,
        status=page.status,
        between=(page.from_time, page.to_time),
        before=page.before,
        newest_first=True,
    )
    return found.limit(page.limit)


def one(call_id: str, fn_id: str, app_id: str) -> Select[Any]:
    """The record of the call, where it is one of the function and the app that are named."""
    return _RECORDS.where(calls.c.id == call_id, *_owned(fn_id, app_id))


def records(
    dialect: str,
    columns: Sequence[Column[Any]] = RECORD,
    *,
    fn_id: str = "",
    app_id: str = "",
    path: str = "",
    status: str = "",
    between: tuple[str, str] = ("", ""),
    before: str = "",
    newest_first: bool = False,
) -> Select[Any]:
    """The *columns* of records in the order of their ids, of those that have what is named.

    *between*: times of wire text, exclusive. *before*: an id.
    """
    named = {"fn_id": fn_id, "app_id": app_id, "path_hash": path_hash(path), "status": status}
    equal = {name: value for name, value in named.items() if value}
    fixed, rows = next(one for one in _INDEXED if _serves(*one, equal))
    query = _RECORDS if columns is RECORD else select(*columns)
    if rows is not None:
        query = query.where(rows)
    if path:
        query = query.where(calls.c.path == path)
    rest = equal.keys() - {column.name for column in fixed}
    query = query.where(*[calls.c[name] == equal[name] for name in sorted(rest)])
    from_time, to_time = between
    from_, below = "", [before] if before else []
    if from_time:
        query = query.where(calls.c.created_at > from_time)
        from_ = ids.first_of(times.seconds_of(from_time) - SLACK)
    if to_time:
        query = query.where(calls.c.created_at < to_time)
        below.append(ids.first_of(times.seconds_of(to_time) + SLACK))
    return seek(
        query,
        dialect,
        [(column, equal[column.name]) for column in fixed],
        calls.c.id,
        from_=from_,
        below=min(below, default=""),
        newest_first=newest_first,
    )


def _serves(columns: Sequence[Column[Any]], rows: TextClause | None, equal: Mapping[str, str]) -> bool:
    """Whether an index on *columns* of *rows* finds all that has the values *equal*."""
    ended = rows is NOT_ENDED and equal.get("status") in FINAL
    return not ended and all(column.name in equal for column in columns)


def _owned(fn_id: str, app_id: str) -> list[ColumnElement[bool]]:
    """Of that function and app, where one is named."""
    named = [(calls.c.fn_id, fn_id), (calls.c.app_id, app_id)]
    return [column == value for column, value in named if value]


def waiting(older_than: str, limit: int) -> Select[Any]:
    """Ids of records that are queued since before *older_than*, oldest first."""
    # By our own clock: a runner's may be off, and created_at is the runner's.
    since = calls.c.recorded_at
    query = select(calls.c.id).where(NOT_ENDED, calls.c.status == Status.QUEUED, since < older_than)
    return query.order_by(since).limit(limit)
