"""Ends of sync calls as rows: what a node that answers thousands of calls a second writes."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgspec

from services.datastore.bulk import Row, Rows
from services.datastore.tables import calls, logs
from services.logstore.records import path_hash, pieces_of
from services.logstore.results import REASON
from shared_models.call import FINAL, Call, CallType, Finished

_AS_THEY_ARE = attrgetter(
    "id", "status", "app_id", "fn_id", "trigger_id", "path", "image", "type", "created_at", "started_at",
    "completed_at", "error",
)  # fmt: skip


def never_seen(batch: Sequence[Finished]) -> bool:
    """Whether all of *batch* are ends of calls that no queue has had, so that hardly one has a record yet."""
    return all(not one.token and one.call.type == CallType.SYNC and one.call.status in FINAL for one in batch)


def rows_of(batch: Sequence[Finished], now: str) -> Rows:
    """The records of *batch* and their logs, in the order of their keys, as everybody inserts them."""
    ended = sorted(batch, key=lambda one: one.call.id)
    pieces = [
        (piece["call_id"], piece["piece"], piece["body"])
        for one in ended
        if one.log
        for piece in pieces_of(one.call.id, one.log)
    ]
    return (calls, [record_row(one.call, "", now) for one in ended]), (logs, pieces)


def record_row(call: Call, token: str, now: str) -> Row:
    """A new record, in the order of the table's columns."""
    stats = msgspec.json.encode(call.stats).decode() if call.stats else "[]"
    return (
        *_AS_THEY_ARE(call), stats, call.attempt, call.node, token, now, path_hash(call.path),
        call.reason[:REASON],
    )  # fmt: skip
