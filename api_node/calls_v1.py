"""``/v1/apps/{app}/calls``: what became of an app's calls, and their logs.

Source: Fn 0.3.484, api/server/call_*.go. A call has its record from the moment that it is accepted, and
calls of functions are listed with those of routes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from api_node import v1
from api_node.calls import call_of, log_as_text, log_of, result_as_it_is
from api_node.paging import per_page
from shared_models import errors, secrets, times
from shared_models.call import Call, Status
from shared_models.errors import Invalid
from shared_models.interfaces import CallFilter, Datastore, LogStore
from shared_models.web import json_response

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_MAX_SECONDS = 2**63
_EARLIEST, _LATEST = -62135596800, 253402300799
"""What four digits of a year can say."""


class CallsV1:
    """Handlers of calls and logs, which v1 knows by app."""

    def __init__(self, apps: Datastore, store: LogStore) -> None:
        self._apps = apps
        self._store = store

    async def list(self, request: web.Request) -> web.StreamResponse:
        limit = per_page(request)
        asked = CallFilter(
            app_id=await v1.app_id(request, self._apps),
            path=request.query.get("path", ""),
            from_time=_time(request, "from_time", errors.InvalidFromTime),
            to_time=_time(request, "to_time", errors.InvalidToTime),
            # The bare id: any text, since ids are compared as text.
            before=request.query.get("cursor", "").partition("\0")[0],
            limit=limit,
        )
        calls = await self._store.calls(asked)
        body = {
            "message": "Successfully listed calls",
            "next_cursor": calls[-1].id if len(calls) >= limit else "",
            "calls": await self._shown(asked.app_id, calls),
        }
        return json_response(body)

    async def get(self, request: web.Request) -> web.StreamResponse:
        app_id, call_id = await v1.app_id(request, self._apps), request.match_info["call"]
        call = await call_of(request, self._store, call_id, app_id=app_id)
        [shown] = await self._shown(app_id, [call])
        return json_response({"message": "Successfully loaded call", "call": shown})

    async def _shown(self, app_id: str, calls: Sequence[Call]) -> Sequence[dict[str, Any]]:
        if not self._store.whole:
            return [_record(call) for call in calls]
        # Those of before a value was marked have it.
        of_app = (await self._apps.app(app_id)).annotations
        return [_whole(secrets.without(call, of_app)) for call in calls]

    async def log(self, request: web.Request) -> web.StreamResponse:
        app_id, call_id = await v1.app_id(request, self._apps), request.match_info["call"]
        pieces = await log_of(request, self._store, call_id, app_id=app_id)
        if _wants_text(request):
            return await log_as_text(request, pieces)
        text = b"".join([piece async for piece in pieces]).decode("utf-8", "replace")
        log = {"call_id": call_id, "log": text}
        return json_response({"message": "Successfully loaded log", "log": log})

    async def result(self, request: web.Request) -> web.StreamResponse:
        """Ours: Fn keeps no results."""
        app_id, call_id = await v1.app_id(request, self._apps), request.match_info["call"]
        return await result_as_it_is(request, self._store, call_id, app_id=app_id)


def _whole(call: Call) -> dict[str, Any]:
    headers, config = secrets.shown(call.headers), secrets.shown_config(call.config)
    return msgspec.structs.replace(call, headers=headers, config=config).whole()


def _record(call: Call) -> dict[str, Any]:
    body: dict[str, Any] = {"id": call.id, "status": call.status, "path": call.path}
    for name in ("completed_at", "created_at", "started_at"):
        body[name] = getattr(call, name)
    if call.error and call.status != Status.TIMEOUT:  # v1 has never said more of those
        body["error"] = call.error
    if call.stats:
        body["stats"] = call.stats
    body["app_id"] = call.app_id
    return body


def _time(request: web.Request, name: str, error: type[Invalid]) -> str:
    """Unix seconds of the query as wire text, "" when there are none."""
    text = request.query.get(name, "")
    if not text:
        return ""
    if not _WHOLE.fullmatch(text) or not -_MAX_SECONDS <= int(text) < _MAX_SECONDS:
        raise error
    return times.to_text(min(max(int(text), _EARLIEST), _LATEST))


def _wants_text(request: web.Request) -> bool:
    """Whether ``Accept`` asks for the log as it is, not as JSON; raises LogNotAcceptable.

    The first line that has a type which can be given decides, and in it JSON wins. Types are looked for
    as they are written, as the original does.
    """
    lines = request.headers.getall("Accept", ["*/*"])
    for line in lines:
        if "application/json" in line:
            return False
        if "text/plain" in line:
            return True
        if "*/*" in line:
            return False
    raise errors.LogNotAcceptable
