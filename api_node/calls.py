"""``/v2/fns/{fn_id}/calls``: what became of a function's calls, and what they wrote to their log.

It can be read until the janitor has removed what belonged to a function that is gone: none is looked up here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from aiohttp import web

from api_node import kept
from api_node.paging import cursor, page, per_page
from api_node.pieces import in_pieces
from shared_models import errors, times
from shared_models.call import Call, Status
from shared_models.call_interfaces import CallControl
from shared_models.ids import is_id, time_of
from shared_models.interfaces import CallFilter, Datastore, LogStore, Purge
from shared_models.web import client_gone, json_response, stopping

FRESH = 5.0
"""Seconds after it was made during which an unknown id may be that of a call on its way here."""
PATIENCE = 2.0
"""Seconds that a request for such a call waits for its record."""
_BATCHES, _BATCH = 10, 1000
"""Calls that a request removes before it leaves the rest to the janitor."""
_PAUSES = (0.02, 0.05, 0.1)


class Calls:
    """Handlers of calls and logs."""

    def __init__(self, store: LogStore, datastore: Datastore, control: CallControl) -> None:
        self._store = store
        self._control = control
        self._datastore = datastore

    async def list(self, request: web.Request) -> web.StreamResponse:
        limit = per_page(request)
        asked = CallFilter(
            fn_id=request.match_info["fn_id"],
            status=_status(request),
            from_time=_time(request, "from_time"),
            to_time=_time(request, "to_time"),
            before=_before(request),
            limit=limit,
        )
        calls = await self._store.calls(asked)
        return json_response(page([call.record() for call in calls], limit, calls[-1].id if calls else ""))

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """204 when all is gone; 202 when there is so much that the rest is removed behind the answer."""
        purge = Purge(
            fn_id=request.match_info["fn_id"],
            from_time=_time(request, "from_time"),
            # Without an end, calls that are still to come would be meant too.
            to_time=_time(request, "to_time") or times.now(),
        )
        for _ in range(_BATCHES):
            if not await self._store.remove_calls(purge, _BATCH):
                return web.Response(status=204)
        await self._datastore.insert_purge(purge)
        return json_response({"message": "There are many calls: the rest of them is being removed"}, 202)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """204 when the call is cancelled, now or before; a runner that runs it stops it within seconds."""
        await self._control.cancel(request.match_info["fn_id"], request.match_info["call_id"])
        return web.Response(status=204)

    async def get(self, request: web.Request) -> web.StreamResponse:
        call_id, fn_id = request.match_info["call_id"], request.match_info["fn_id"]
        return json_response((await call_of(request, self._store, call_id, fn_id=fn_id)).record())

    async def log(self, request: web.Request) -> web.StreamResponse:
        call_id, fn_id = request.match_info["call_id"], request.match_info["fn_id"]
        return await log_as_text(request, await log_of(request, self._store, call_id, fn_id=fn_id))

    async def result(self, request: web.Request) -> web.StreamResponse:
        call_id, fn_id = request.match_info["call_id"], request.match_info["fn_id"]
        return await result_as_it_is(request, self._store, call_id, fn_id=fn_id)


async def result_as_it_is(
    request: web.Request, store: LogStore, call_id: str, *, fn_id: str = "", app_id: str = ""
) -> web.StreamResponse:
    """What the function answered to a queued call; raises CallResultNotFound, which says why not."""
    try:
        found = await store.result(call_id, fn_id=fn_id, app_id=app_id)
    except errors.CallResultNotFound:
        call = await _ended(
            request, store, call_id, errors.CallResultNotFound, "result", fn_id=fn_id, app_id=app_id
        )
        try:
            # It may have ended between the two looks.
            found = await store.result(call_id, fn_id=fn_id, app_id=app_id)
        except errors.CallResultNotFound:
            raise kept.not_found(call) from None
    return await kept.sent(request, call_id, found)


async def log_as_text(request: web.Request, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """The answer that is a log as it is."""
    return await in_pieces(request, pieces, {"Content-Type": "text/plain; charset=utf-8"})


async def log_of(
    request: web.Request, store: LogStore, call_id: str, *, fn_id: str = "", app_id: str = ""
) -> AsyncIterator[bytes]:
    """The log of a call of that function or app in pieces; raises CallLogNotFound."""
    try:
        return await store.log(call_id, fn_id=fn_id, app_id=app_id)
    except errors.CallLogNotFound:
        await _ended(request, store, call_id, errors.CallLogNotFound, "log", fn_id=fn_id, app_id=app_id)
    return await store.log(call_id, fn_id=fn_id, app_id=app_id)


async def _ended(
    request: web.Request,
    store: LogStore,
    call_id: str,
    missing: type[errors.NotFound],
    what: str,
    *,
    fn_id: str,
    app_id: str,
) -> Call:
    """The record of a call that has ended; raises *missing*, with when there will be *what* if it has not."""
    try:
        call = await call_of(request, store, call_id, fn_id=fn_id, app_id=app_id)
    except errors.CallNotFound:
        raise missing from None
    if not call.final:
        raise missing(f"{missing.text}: the call is {call.status}, its {what} can be read when it has ended")
    return call


async def call_of(
    request: web.Request, store: LogStore, call_id: str, *, fn_id: str = "", app_id: str = ""
) -> Call:
    """The record of a call; a moment is given to one that a runner has yet to hand in.

    Runners answer their clients first and store results of sync calls in batches.
    """
    deadline = time.monotonic() + PATIENCE
    # An id of the future is that of a runner whose clock is ahead.
    fresh = is_id(call_id) and time.time() - time_of(call_id) < FRESH
    for attempt in range(1000):
        try:
            return await store.call(call_id, fn_id=fn_id, app_id=app_id)
        except errors.CallNotFound:
            ended = stopping(request).is_set() or client_gone(request)
            if not fresh or ended or time.monotonic() >= deadline:
                raise
        await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
    raise errors.CallNotFound


def _status(request: web.Request) -> str:
    status = request.query.get("status", "")
    if status and status not in set(Status):
        raise errors.Invalid(f"status: must be one of {', '.join(Status)}")
    return status


def _time(request: web.Request, name: str) -> str:
    text = request.query.get(name, "")
    if not text:
        return ""
    try:
        # A plus that nobody escaped arrives as a space.
        return times.normalise(text.replace(" ", "+"))
    except ValueError as exc:
        raise errors.Invalid(f"{name}: {exc}") from None


def _before(request: web.Request) -> str:
    key = cursor(request)
    if key and not is_id(key):
        raise errors.BadCursor
    return key
