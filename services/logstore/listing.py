"""Which records a page has, as queries that are a short range of an index however many calls there are.

A record is found by the time in its id (``shared_models.ids``), which every index of calls ends with, and
then held against its ``created_at``. Both are written by whoever took the call, at nearly the same moment.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, select

from services.datastore.tables import calls
from services.logstore.records import RECORD, path_hash
from shared_models import ids, times
from shared_models.call import Status
from shared_models.interfaces import CallFilter

SLACK = 60.0
"""Seconds by which the time in an id and ``created_at`` may differ."""


def page_of(page: CallFilter) -> Select[Any]:
    """The records of *page*, newest first."""
    query = select(*RECORD).where(*owned(page.fn_id, page.app_id))
    if page.path:
        query = query.where(calls.c.path_hash == path_hash(page.path), calls.c.path == page.path)
    if page.status:
        query = query.where(calls.c.status == page.status)
    query = query.where(*created(page.from_time, page.to_time, page.before))
    return query.order_by(calls.c.id.desc()).limit(page.limit)


def owned(fn_id: str, app_id: str) -> list[ColumnElement[bool]]:
    """Of that function and app, where one is named."""
    named = [(calls.c.fn_id, fn_id), (calls.c.app_id, app_id)]
    return [column == value for column, value in named if value]


def created(from_time: str, to_time: str, before: str = "") -> list[ColumnElement[bool]]:
    """Created between two times (wire text, exclusive), and older than the id *before*, where given."""
    conditions: list[ColumnElement[bool]] = []
    # One bound for each side: SQLite seeks by one only.
    below = [before] if before else []
    if from_time:
        conditions.append(calls.c.created_at > from_time)
        conditions.append(calls.c.id >= ids.first_of(times.seconds_of(from_time) - SLACK))
    if to_time:
        conditions.append(calls.c.created_at < to_time)
        below.append(ids.first_of(times.seconds_of(to_time) + SLACK))
    if below:
        conditions.append(calls.c.id < min(below))
    return conditions


def waiting(older_than: str, limit: int) -> Select[Any]:
    """Ids of records that are queued since before *older_than*, oldest first."""
    # By our own clock: a runner's may be off, and created_at is the runner's.
    since = calls.c.recorded_at
    query = select(calls.c.id).where(calls.c.status == Status.QUEUED, since < older_than)
    return query.order_by(since).limit(limit)
